"""apple/ml-cross-entropy: logits never stored; by default parts of the gradient below a threshold are skipped."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from benchmarks.peers.contracts import LogprobFunction, RowLogprobPeer
from benchmarks.providers import needs_cuda


def _make(is_exact: bool) -> LogprobFunction:
    from cut_cross_entropy import linear_cross_entropy

    options = {"filter_eps": None} if is_exact else {}

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return -linear_cross_entropy(hidden, weight, targets, reduction="none", **options)

    return compute


_on_cuda = needs_cuda("cut_cross_entropy")
_NOTE = "gradients are added up in bfloat16"

ROW_LOGPROB = [
    RowLogprobPeer(
        "cut-cross-entropy", partial(_make, False), _on_cuda, precision="bfloat16", note=f"{_NOTE}, small ones skipped"
    ),
    RowLogprobPeer("cut-cross-entropy, exact", partial(_make, True), _on_cuda, precision="bfloat16", note=_NOTE),
]
