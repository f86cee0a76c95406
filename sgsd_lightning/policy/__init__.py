"""The policy: where its model comes from, adapters, export, and which weights teach."""

from sgsd_lightning.policy.export import export_model
from sgsd_lightning.policy.loading import PolicySource, PretrainedPolicy, RandomPolicy
from sgsd_lightning.policy.lora import LoraSettings
from sgsd_lightning.policy.views import (
    EmaTeacher,
    FrozenTeacher,
    LiveTeacher,
    PeriodicTeacher,
    PolicyView,
    ShadowTeacher,
)

__all__ = [
    "EmaTeacher",
    "FrozenTeacher",
    "LiveTeacher",
    "LoraSettings",
    "PeriodicTeacher",
    "PolicySource",
    "PolicyView",
    "PretrainedPolicy",
    "RandomPolicy",
    "ShadowTeacher",
    "export_model",
]
