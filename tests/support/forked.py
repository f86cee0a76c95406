"""Processes that are forked from one which has done the imports: seconds less for each than a fresh interpreter."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = [
    "sgsd_lightning.cli.lightning_cli",
    "sgsd_lightning.cli.terminal",
    "tests.support.accidents",
    "torch.utils.tensorboard",
    "transformers.models.qwen3.modeling_qwen3",
    "math_verify",
]


def forkserver() -> ForkServerContext:
    """The one server of this process; it must not be started otherwise before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
