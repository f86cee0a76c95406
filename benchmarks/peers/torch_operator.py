"""torch.nn.functional.linear_cross_entropy, new in torch 2.13."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.peers.contracts import LogprobFunction, RowLogprobPeer


def _why_unavailable(device: torch.device) -> str | None:
    if hasattr(torch.nn.functional, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions"):
        return None
    return f"torch {torch.__version__} has no chunked linear_cross_entropy"


def _make(reduction: str) -> LogprobFunction:
    options = torch.nn.LinearCrossEntropyOptions()

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return -torch.nn.functional.linear_cross_entropy(hidden, weight, targets, reduction=reduction, options=options)

    return compute


ROW_LOGPROB = [
    RowLogprobPeer(
        "torch linear_cross_entropy",
        partial(_make, "none"),
        _why_unavailable,
        precision="bfloat16",
        note="recomputes in backward",
    ),
    RowLogprobPeer(
        "torch linear_cross_entropy, sum",
        partial(_make, "sum"),
        _why_unavailable,
        precision="bfloat16",
        question="sum",
        note="gradients in forward",
    ),
]
