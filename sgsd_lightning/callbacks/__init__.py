"""What watches a run: checkpoints, stopping and resuming, tables, statistics, the alignment audit."""

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

__all__ = [
    "AlignmentAudit",
    "BankMaintenance",
    "BestCheckpoint",
    "CollapseGuard",
    "NonfiniteLoss",
    "OptimizerMetrics",
    "Preemption",
    "ProgressLine",
    "ResumeGuard",
    "RolloutTable",
    "RunCheckpoint",
    "RunStatistics",
    "SamplerGapAlarm",
    "TrimLogs",
    "Watchdog",
]
