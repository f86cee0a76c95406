"""Where a run's numbers go when the configuration names no logger."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger


def default_loggers(run_folder: Path) -> list[Logger]:
    """TensorBoard and CSV in the run folder; W&B too when it is installed and its environment variables are set."""
    loggers: list[Logger] = [
        # one row per step, so that a run which is killed leaves them all
        CSVLogger(run_folder, name="metrics", flush_logs_every_n_steps=1),
        TensorBoardLogger(run_folder, name="tensorboard", version=""),
    ]
    wants_wandb = "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ
    if wants_wandb and importlib.util.find_spec("wandb") is not None:
        loggers.append(WandbLogger(save_dir=run_folder))
    return loggers
