"""What a run says of the choices that it made itself, such as the attention and the head's implementation."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sgsd_lightning.cli.errors import OUR_PACKAGES


def announce_choices() -> None:
    """Show messages of level INFO of our packages on the terminal, once for all processes."""
    for name in OUR_PACKAGES:
        logger = logging.getLogger(name)
        if logger.handlers:
            continue
        handler = logging.StreamHandler()
        handler.addFilter(_is_for_this_process)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def _is_for_this_process(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or getattr(rank_zero_only, "rank", 0) == 0
