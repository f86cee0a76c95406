"""Where a run's numbers go when the configuration names no logger."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from sgsd_lightning.training.metrics_table import MetricsTable


def default_loggers(run_folder: Path) -> list[Logger]:
    """TensorBoard and CSV in the run folder; W&B too when it is installed and its environment variables are set."""
    loggers: list[Logger] = [
        MetricsTable(_table_folder(run_folder / "metrics")),
        TensorBoardLogger(run_folder, name="tensorboard", version=""),
    ]
    wants_wandb = "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ
    if wants_wandb and importlib.util.find_spec("wandb") is not None:
        loggers.append(WandbLogger(save_dir=run_folder))
    return loggers


def _table_folder(metrics: Path) -> Path:
    """The newest folder, of those that resumes of earlier editions began; a new run has one."""
    known = [path for path in metrics.glob("version_*") if path.name.removeprefix("version_").isdigit()]
    newest = max(known, key=lambda path: int(path.name.removeprefix("version_")), default=None)
    return newest or metrics / "version_0"
