"""What every hand-written forward and backward pass of this package needs around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def kernel_scope(device: torch.device) -> Iterator[None]:
    """A region whose products keep the dtypes they are written in, and whose kernels are launched on ``device``."""
    with ExitStack() as stack:
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        yield


def refuse_second_derivative(name: str) -> None:
    """To be called in a backward pass. torch's own `once_differentiable` lets a constant upstream gradient through.

    Raises:
        RuntimeError: backward was asked for a graph of its own.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name} has no second derivative; call backward without create_graph=True")
