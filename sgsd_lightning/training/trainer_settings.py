"""Settings of Lightning's trainer: its refusals in one sentence, and what it accepts but should not."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sgsd_lightning.types.arguments import require, require_at_least

_HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision")


@contextmanager
def told_in_one_sentence(settings: Mapping[str, Any]) -> Iterator[None]:
    """Within this a trainer is built; what Lightning refuses is told as a wrong setting, with its reason.

    Args:
        settings: of the trainer, by name.

    Raises:
        ValueError: naming a precision that is not there, or what accelerator, devices, strategy and precision are set
            to.
    """
    check_precision(settings)
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


def check_trainer(trainer: Trainer, is_fitting: bool) -> None:
    """Refuse numbers that Lightning takes and that train nothing, or wrongly.

    Args:
        trainer: as Lightning made it.
        is_fitting: whether it is to train; validation and test leave the limits of training alone.

    Raises:
        ValueError: naming the setting.
    """
    require_at_least(1, "trainer.accumulate_grad_batches", trainer.accumulate_grad_batches)
    clip = trainer.gradient_clip_val
    is_clip = clip is None or (math.isfinite(clip) and clip >= 0)
    require(is_clip, "trainer.gradient_clip_val", "be above 0, or null for no clipping", clip)
    _require_share_or_count("trainer.val_check_interval", trainer.val_check_interval)
    if trainer.check_val_every_n_epoch is not None:
        require_at_least(1, "trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch)
    require_at_least(0, "trainer.log_every_n_steps", trainer.log_every_n_steps)  # type: ignore[attr-defined]
    if is_fitting:
        _require_limit("trainer.max_steps", trainer.max_steps)
        _require_limit("trainer.max_epochs", trainer.max_epochs)
        limit = trainer.limit_train_batches
        require(limit is None or limit > 0, "trainer.limit_train_batches", "be above 0 to train anything", limit)


def check_precision(settings: Mapping[str, Any]) -> None:
    """Refuse a precision that the settings' accelerator has no kernels for.

    Raises:
        ValueError: naming it, and what to set instead.
    """
    accelerator = settings.get("accelerator") or "auto"
    is_on_cpu = accelerator == "cpu" or (accelerator == "auto" and not _has_accelerator())
    if is_on_cpu and str(settings.get("precision")) in ("16", "16-mixed"):
        raise ValueError("trainer.precision 16-mixed is not there on a CPU; set 32-true or bf16-mixed")


def _has_accelerator() -> bool:
    kinds = (AcceleratorRegistry[name]["accelerator"] for name in AcceleratorRegistry.available_accelerators())
    return any(kind is not CPUAccelerator and kind.is_available() for kind in kinds)


def _require_limit(field: str, found: int | None) -> None:
    is_limit = found is None or found == -1 or found >= 1
    require(is_limit, field, "be at least 1 to train anything, or -1 for no limit", found)


def _require_share_or_count(field: str, found: Any) -> None:
    """A fraction of an epoch, or a number of batches; a text is a time, which Lightning reads."""
    if not isinstance(found, int | float):
        return
    is_right = found >= 1 if isinstance(found, int) else 0 < found <= 1
    require(is_right, field, "be a whole number from 1 on, or a fraction of an epoch in (0, 1]", found)
