"""The policy: where its model comes from, how it scores completions, and which weights teach."""

from sgsd_lightning.policy.attention import resolve_attention
from sgsd_lightning.policy.export import export_model
from sgsd_lightning.policy.loading import PolicySource, PretrainedPolicy, RandomPolicy
from sgsd_lightning.policy.lora import LoraSettings
from sgsd_lightning.policy.loss_mask import LossMaskRule
from sgsd_lightning.policy.scoring import Scorer
from sgsd_lightning.policy.sharding import ShardingSettings, shard_policy
from sgsd_lightning.policy.teacher_weights import (
    EmaTeacher,
    FrozenTeacher,
    LiveTeacher,
    PeriodicTeacher,
    ShadowTeacher,
    TeacherWeights,
)

__all__ = [
    "EmaTeacher",
    "FrozenTeacher",
    "LiveTeacher",
    "LoraSettings",
    "LossMaskRule",
    "PeriodicTeacher",
    "PolicySource",
    "PretrainedPolicy",
    "RandomPolicy",
    "Scorer",
    "ShadowTeacher",
    "ShardingSettings",
    "TeacherWeights",
    "export_model",
    "resolve_attention",
    "shard_policy",
]
