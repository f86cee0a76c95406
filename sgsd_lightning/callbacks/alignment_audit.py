"""Runs the alignment audit before the first step and keeps it beside the run."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.audit import audit
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.module import SelfDistillation

log = logging.getLogger(__name__)


class AlignmentAudit(Callback):
    """Writes ``prompt_audit.txt`` into the run folder and logs its warnings.

    Args:
        enabled: off skips it.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not self.enabled or not isinstance(data, ProblemDataModule):
            return
        assert isinstance(pl_module, SelfDistillation)
        report = audit(pl_module, data.problems["train"][0])
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "prompt_audit.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(report) + "\n", encoding="utf-8")
        for warning in report.warnings:
            log.warning("prompt audit: %s (see %s)", warning, path)
