"""QuACK: chunked products and CuTe kernels; the sum over rows only."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.contracts import LogprobFunction, RowLogprobPeer
from benchmarks.providers import needs_cuda

_missing_on = needs_cuda("quack")


def _why_unavailable(device: torch.device) -> str | None:
    reason = _missing_on(device)
    if reason is None and torch.cuda.get_device_capability(device) < (9, 0):
        return "its kernels need compute capability 9.0 or above"
    return reason


def _make() -> LogprobFunction:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return -chunked_linear_cross_entropy(hidden, weight, targets, reduction="sum")

    return compute


ROW_LOGPROB = [
    RowLogprobPeer(
        "QuACK linear_cross_entropy, sum",
        _make,
        _why_unavailable,
        precision="bfloat16",
        question="sum",
        note="gradients in forward, of a sum or mean only",
    )
]
