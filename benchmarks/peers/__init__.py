"""Everyone who computes what these kernels compute: one file per origin, each of which lists what it offers."""

from __future__ import annotations

from benchmarks.peers import cut_cross_entropy, eager, liger, ours, quack, torch_operator
from benchmarks.peers.contracts import DivergencePeer, RowLogprobPeer


def row_logprob_peers() -> list[RowLogprobPeer]:
    """Everyone with a log-probability per row, or with the sum of them."""
    origins = (ours, eager, torch_operator, liger, cut_cross_entropy, quack)
    return [peer for origin in origins for peer in origin.ROW_LOGPROB]


def divergence_peers() -> list[DivergencePeer]:
    """Everyone with a full-vocabulary divergence."""
    return [peer for origin in (ours, eager, liger) for peer in origin.DIVERGENCE]
