"""The policy: where its model comes from, how it scores completions, and which weights teach."""

from sgsd_lightning.policy.attention import resolve_attention
from sgsd_lightning.policy.export import export_model
from sgsd_lightning.policy.loading import PolicySource, PretrainedPolicy, RandomPolicy
from sgsd_lightning.policy.lora import LoraSettings
from sgsd_lightning.policy.loss_mask import LossMaskRule
from sgsd_lightning.policy.scoring import Scorer
from sgsd_lightning.policy.teacher_weights import FrozenTeacher, LiveTeacher, TeacherWeights

__all__ = [
    "FrozenTeacher",
    "LiveTeacher",
    "LoraSettings",
    "LossMaskRule",
    "PolicySource",
    "PretrainedPolicy",
    "RandomPolicy",
    "Scorer",
    "TeacherWeights",
    "export_model",
    "resolve_attention",
]
