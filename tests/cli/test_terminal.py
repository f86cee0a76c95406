"""What reaches the terminal of a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from sgsd_lightning.cli.terminal import quiet_console, silence_known_warnings

LIGHTNING = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    loggers = {name: logging.getLogger(name) for name in LIGHTNING}
    known = {name: (logger.level, list(logger.filters)) for name, logger in loggers.items()}
    with warnings.catch_warnings():
        yield
    for name, (level, filters) in known.items():
        loggers[name].setLevel(level)
        loggers[name].filters[:] = filters
    enable_progress_bar()


def test_many_runs_leave_the_terminal_to_their_progress() -> None:
    quiet_console()
    for name in LIGHTNING:
        logger = logging.getLogger(name)
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("text", ["💡 Tip: buy", "TPU available: False, using: 0 TPU cores", "GPU available: False"])
def test_advertisements_and_absent_devices_are_left_out(text: str) -> None:
    assert not said(logging.INFO, text)


def test_nothing_else_is_left_out() -> None:
    assert said(logging.INFO, "Seed set to 1")
    assert said(logging.WARNING, "GPU available but not used")


def said(level: int, text: str) -> bool:
    silence_known_warnings()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    return bool(logger.filter(logging.LogRecord(logger.name, level, "", 0, text, (), None)))


def test_bars_of_loading_are_off_and_those_of_downloads_are_not() -> None:
    silence_known_warnings()
    assert not is_progress_bar_enabled()
    assert not are_progress_bars_disabled()
