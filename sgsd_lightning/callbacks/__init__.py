"""What watches a run: checkpoints, tables, statistics, the alignment audit."""

from sgsd_lightning.callbacks.alignment_audit import AlignmentAudit
from sgsd_lightning.callbacks.checkpoint import RunCheckpoint
from sgsd_lightning.callbacks.loggers import default_loggers
from sgsd_lightning.callbacks.rollout_table import RolloutTable
from sgsd_lightning.callbacks.run_statistics import RunStatistics

__all__ = ["AlignmentAudit", "RolloutTable", "RunCheckpoint", "RunStatistics", "default_loggers"]
