"""What a run says of the choices that it made itself, and what others need not say beside it."""

from __future__ import annotations

import logging
import os
import re
import warnings
from typing import Any

from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from transformers.utils.logging import disable_progress_bar

from sgsd_lightning.callbacks.progress import CLEAR_LINE
from sgsd_lightning.cli.errors import OUR_PACKAGES
from sgsd_lightning.texts.shown import printable

NOISE = (
    # metrics are put together over processes before they are logged
    r"It is recommended to use .self\.log.*sync_dist=True",
    # Lightning's own business with torch
    r".isinstance\(treespec, LeafSpec\). is deprecated",
    # predictions are written as they come, and a run that is resumed has checkpoints
    r"predict returned None if it was on purpose",
    r"Checkpoint directory .* exists and is not empty",
)


NOISY_MESSAGES = re.compile(
    r"Tip:|^(GPU|TPU|IPU|HPU) available|^LOCAL_RANK|^`Trainer\.fit` stopped|^Restor(ing|ed) |^Loaded model weights"
)
"""Of Lightning: advertisements, devices that are not used, and what the progress line and we say ourselves."""


def silence_known_warnings() -> None:
    """Drop warnings that a user of ours can do nothing about, advertisements, and bars that are full in a second."""
    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_noise)
    shows_downloads = not are_progress_bars_disabled()
    disable_progress_bar()  # of loading a model, and of downloading one
    if shows_downloads:
        enable_progress_bars()


class _BesideProgress(logging.StreamHandler[Any]):
    """Takes the place of a progress line that is drawn on the terminal, instead of writing into it."""

    def format(self, record: logging.LogRecord) -> str:
        is_drawn = not getattr(self.stream, "closed", False) and self.stream.isatty()
        return f"{CLEAR_LINE if is_drawn else ''}{super().format(record)}"


def quiet_console() -> None:
    """Leave the terminal to the progress and the tables of a command that makes many runs; warnings are still heard."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module="lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    disable_progress_bar()  # of loading a model


def announce_choices() -> None:
    """Show messages of level INFO of our packages on the terminal, once for all processes."""
    for name in OUR_PACKAGES:
        logger = logging.getLogger(name)
        if logger.handlers:
            continue
        handler = _BesideProgress()
        handler.addFilter(_is_for_this_process)
        handler.setFormatter(_Printable())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _Printable(logging.Formatter):
    """Messages quote problems and banks."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _is_no_noise(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not NOISY_MESSAGES.search(record.getMessage())


def _is_for_this_process(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or getattr(rank_zero_only, "rank", 0) == 0
