"""What reaches the terminal of a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest
from transformers.utils.logging import enable_progress_bar

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


def test_advertisements_are_left_out_and_nothing_else() -> None:
    silence_known_warnings()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    said = {text: logging.LogRecord(logger.name, logging.INFO, "", 0, text, (), None) for text in ("Tip: buy", "GPU")}
    assert [bool(logger.filter(record)) for record in said.values()] == [False, True]
