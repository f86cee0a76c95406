"""The records of one training step, in the order in which they are made, and the base class of all parts.

Problem -> Completion -> Turn -> Rollout -> Verdict -> TeacherContext -> ScoreRow -> TokenScores. Records hold data
only; the logic is in the parts that fill them. `Part` is the life cycle of every plug-in.

A row is a rollout. Its T sampled ids are spread over one or more token sequences, each id predicted from some position
of some sequence. Every teacher reads the same T ids in sequences of its own.
"""

from sgsd_lightning.types.part import Part
from sgsd_lightning.types.rollouts import (
    Completion,
    FinishReason,
    Messages,
    Problem,
    ProblemBatch,
    Rollout,
    SamplingSettings,
    Turn,
)
from sgsd_lightning.types.scores import (
    DivergenceRequest,
    ScoreRequest,
    ScoreRow,
    SupportScores,
    TeacherContext,
    TokenScores,
    TokenSequence,
)
from sgsd_lightning.types.steps import Observation, Stance, StepRecord, Taught, TeacherStances
from sgsd_lightning.types.verdicts import JudgedRollout, RewardSpan, Verdict, without_dropped

__all__ = [
    "Completion",
    "DivergenceRequest",
    "FinishReason",
    "JudgedRollout",
    "Messages",
    "Observation",
    "Part",
    "Problem",
    "ProblemBatch",
    "RewardSpan",
    "Rollout",
    "SamplingSettings",
    "ScoreRequest",
    "ScoreRow",
    "Stance",
    "StepRecord",
    "SupportScores",
    "Taught",
    "TeacherContext",
    "TeacherStances",
    "TokenScores",
    "TokenSequence",
    "Turn",
    "Verdict",
    "without_dropped",
]
