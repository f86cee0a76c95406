"""On resume, drop log rows of steps that will run again."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.files import atomically

log = logging.getLogger(__name__)

TABLES = ("rollouts", "evaluation", "skills/updates")


class TrimLogs(Callback):
    """At the start of training, drops rows of steps after the resumed checkpoint from the run's tables.

    A run that was killed may have written rows of steps that its last checkpoint does not hold; these steps are taken
    again. ``rollouts*.jsonl``, ``evaluation*.jsonl`` and ``skills/updates.jsonl`` keep the rows up to the checkpoint's
    step, and so does every ``metrics/version_*/metrics.csv``, which counts steps from 0.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            folder = Path(trainer.default_root_dir)
            for path in (path for table in TABLES for path in sorted(folder.glob(f"{table}*.jsonl"))):
                _keep_lines(path, trainer.global_step)
            begun = {str(logger.log_dir) for logger in trainer.loggers if getattr(logger, "is_written", True)}
            for path in sorted(folder.glob("metrics/version_*/metrics.csv")):
                if str(path.parent) not in begun:
                    _keep_rows(path, trainer.global_step)
        trainer.strategy.barrier("resumed rows")


def _keep_lines(path: Path, last_step: int) -> None:
    _filter(path, lambda line: _step_of(line) <= last_step)


def _step_of(line: str) -> float:
    """Infinity for a line that was torn when the process died."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _keep_rows(path: Path, num_steps: int) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file), [])
    if "step" not in header:
        return
    column = header.index("step")

    def is_kept(line: str) -> bool:
        cells = next(csv.reader([line]), [])
        return cells == header or (
            len(cells) == len(header) and cells[column].isdigit() and int(cells[column]) < num_steps
        )

    _filter(path, is_kept)


def _filter(path: Path, is_kept: Callable[[str], bool]) -> None:
    """Rewrite a file without some of its lines, in one move."""
    # a completion may hold any other line break that Python knows
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = list(file)
    kept = [line for line in lines if is_kept(line)]
    num_dropped = len(lines) - len(kept)
    if not num_dropped:
        return
    with atomically(path) as file:
        file.writelines(kept)
    log.info("%s: took out %d rows of steps that are taken again", path, num_dropped)
