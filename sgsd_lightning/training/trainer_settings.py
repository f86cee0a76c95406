"""Settings of Lightning's trainer: its refusals in one sentence, and what it accepts but should not."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision")


@contextmanager
def told_in_one_sentence(settings: Mapping[str, Any]) -> Iterator[None]:
    """Within this a trainer is built; what Lightning refuses is told as a wrong setting, with its reason.

    Args:
        settings: of the trainer, by name.

    Raises:
        ValueError: naming what accelerator, devices, strategy and precision are set to.
    """
    try:
        yield
    except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if "lightning" not in Path(frames[-1].filename).parts:
            raise
        given = [f"{name} {settings[name]}" for name in _HARDWARE if isinstance(settings.get(name), str | int)]
        hardware = f" (trainer: {', '.join(given)})" if given else ""
        raise ValueError(f"{_first_line(error)}{hardware}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def check_trainer(trainer: Trainer) -> None:
    """Refuse numbers that Lightning takes and that train nothing, or wrongly.

    Raises:
        ValueError: naming the setting.
    """
    accumulate, clip = trainer.accumulate_grad_batches, trainer.gradient_clip_val
    rules = {
        "accumulate_grad_batches": (
            isinstance(accumulate, int) and accumulate >= 1,
            accumulate,
            "a whole number from 1",
        ),
        "gradient_clip_val": (
            clip is None or (math.isfinite(clip) and clip >= 0),
            clip,
            "above 0, or null for no clipping",
        ),
        "max_steps": (trainer.max_steps != 0, trainer.max_steps, "at least 1, or -1 for no limit"),
        "max_epochs": (trainer.max_epochs != 0, trainer.max_epochs, "at least 1, or -1 for no limit"),
        "limit_train_batches": (
            trainer.limit_train_batches is None or trainer.limit_train_batches > 0,
            trainer.limit_train_batches,
            "above 0",
        ),
    }
    for name, (is_valid, value, rule) in rules.items():
        if not is_valid:
            raise ValueError(f"trainer.{name} must be {rule}; got {value}")
