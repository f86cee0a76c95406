"""What a run needs around the step: validation, preflight, metrics of a step, FSDP2, weights that are saved."""

from sgsd_lightning.training.fsdp2 import FSDP2Strategy
from sgsd_lightning.training.validation import EvaluationSettings, SampledEvaluation

__all__ = ["EvaluationSettings", "FSDP2Strategy", "SampledEvaluation"]
