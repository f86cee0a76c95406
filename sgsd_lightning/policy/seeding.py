"""Random initial values that depend on a seed alone, and leave the global random state as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this, torch draws from ``seed``; afterwards the random states are what they were before.

    Of the GPUs, only the current one is looked after: this process draws on no other.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
