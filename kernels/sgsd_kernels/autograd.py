"""What every hand-written backward pass of this package asks of autograd."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A region whose products keep the dtypes they are written in."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def refuse_second_derivative(name: str) -> None:
    """To be called in a backward pass. torch's own `once_differentiable` lets a constant upstream gradient through.

    Raises:
        RuntimeError: backward was asked for a graph of its own.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name} has no second derivative; call backward without create_graph=True")
