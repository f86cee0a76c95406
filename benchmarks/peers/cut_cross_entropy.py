"""apple/ml-cross-entropy: logits never stored; by default parts of the gradient below a threshold are skipped."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from benchmarks.peers.contracts import LogprobFunction, RowLogprobPeer
from benchmarks.providers import needs_cuda


def _make(filter_eps: str | None) -> LogprobFunction:
    from cut_cross_entropy import linear_cross_entropy

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return -linear_cross_entropy(hidden, weight, targets, reduction="none", filter_eps=filter_eps)

    return compute


_on_cuda = needs_cuda("cut_cross_entropy")
_NOTE = "gradients are added up in bfloat16"

ROW_LOGPROB = [
    RowLogprobPeer(
        "cut-cross-entropy", partial(_make, "auto"), _on_cuda, precision="bfloat16", note=f"{_NOTE}, small ones skipped"
    ),
    RowLogprobPeer("cut-cross-entropy, exact", partial(_make, None), _on_cuda, precision="bfloat16", note=_NOTE),
]
