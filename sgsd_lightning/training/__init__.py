"""What a run needs around the step: learners, validation, preflight, a step's metrics and report, FSDP2."""

from sgsd_lightning.training.fsdp2 import FSDP2Strategy
from sgsd_lightning.training.learner import Learner, LearnerStep, ScoringSettings
from sgsd_lightning.training.run_callback import RunCallback, StepPhase
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.training.validation import EvaluationSettings, SampledEvaluation

__all__ = [
    "EvaluationSettings",
    "FSDP2Strategy",
    "Learner",
    "LearnerStep",
    "RunCallback",
    "SampledEvaluation",
    "ScoringSettings",
    "StepPhase",
    "StepReport",
]
