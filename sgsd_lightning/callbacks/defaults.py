"""What every run gets, from the command line and from Python alike: its callbacks and the trainer's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from sgsd_lightning.callbacks.alignment_audit import AlignmentAudit
from sgsd_lightning.callbacks.bank_maintenance import BankMaintenance
from sgsd_lightning.callbacks.best_checkpoint import BestCheckpoint
from sgsd_lightning.callbacks.checkpoint import RunCheckpoint
from sgsd_lightning.callbacks.collapse_guard import CollapseGuard
from sgsd_lightning.callbacks.nonfinite_loss import NonfiniteLoss
from sgsd_lightning.callbacks.optimizer_metrics import OptimizerMetrics
from sgsd_lightning.callbacks.preemption import Preemption
from sgsd_lightning.callbacks.progress import ProgressLine
from sgsd_lightning.callbacks.resume_guard import ResumeGuard
from sgsd_lightning.callbacks.rollout_table import RolloutTable
from sgsd_lightning.callbacks.run_statistics import RunStatistics
from sgsd_lightning.callbacks.sampler_gap import SamplerGapAlarm
from sgsd_lightning.callbacks.trim_logs import TrimLogs
from sgsd_lightning.callbacks.watchdog import Watchdog

RUN_CALLBACKS: Mapping[str, type[Callback]] = {
    # before RunCheckpoint, so that Lightning's ckpt_path="best" means it
    "best_checkpoint": BestCheckpoint,
    "checkpoint": RunCheckpoint,
    # the order in which these deal with a step is in their phases
    "rollout_table": RolloutTable,
    "bank_maintenance": BankMaintenance,
    "run_statistics": RunStatistics,
    "alignment_audit": AlignmentAudit,
    "nonfinite_loss": NonfiniteLoss,
    # after it, which takes the gradient away from a step that is skipped
    "optimizer_metrics": OptimizerMetrics,
    "collapse_guard": CollapseGuard,
    "resume": ResumeGuard,
    "trim_logs": TrimLogs,
    "preemption": Preemption,
    "watchdog": Watchdog,
    "sampler_gap": SamplerGapAlarm,
}
"""The callbacks of every run by the name that a configuration sets them under."""

TRAINER_DEFAULTS: Mapping[str, Any] = {
    "use_distributed_sampler": False,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}
"""Where our trainer's settings differ from Lightning's."""


def default_callbacks(own: Sequence[Callback] = ()) -> list[Callback]:
    """``own`` and, of every kind that it does not hold, the default; in the order of :data:`RUN_CALLBACKS`."""
    callbacks = [
        next((callback for callback in own if isinstance(callback, kind)), None) or kind()
        for kind in RUN_CALLBACKS.values()
    ]
    return [*callbacks, *(callback for callback in own if callback not in callbacks)]


def with_progress(callbacks: Sequence[Callback], is_enabled: bool | None) -> list[Callback]:
    """``callbacks`` and our progress line, unless there is a progress bar among them, or there is to be none."""
    has_own = any(isinstance(callback, ProgressBar) for callback in callbacks)
    return [*callbacks, *([] if has_own or is_enabled is False else [ProgressLine()])]
