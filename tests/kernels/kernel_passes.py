"""The passes of kernels as parameters of tests, and which of them a device can run."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def device_capability() -> int | None:
    """Compute capability of the GPU, as 80, 90, 100; None where kernels are interpreted, which can be any."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def by_copy_engine(passes: Any, name: str = "tma") -> Any:
    """``passes`` as a parameter of a test that skips on a GPU without the bulk copy engine (before Hopper)."""
    capability = device_capability()
    lacks_it = capability is not None and capability < 90
    return pytest.param(passes, id=name, marks=pytest.mark.skipif(lacks_it, reason="TMA needs Hopper or later"))
