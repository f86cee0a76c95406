"""The student on a local support by Triton kernels that gather no head row in memory: implementation ``triton``.

The ranking of the teacher's tokens has no kernel that keeps logits on the chip; see `sgsd_kernels.support.top_k`.
"""

from __future__ import annotations

from torch import Tensor

from sgsd_kernels.support.kernels.products import gather_dot, scatter_sum
from sgsd_kernels.support.passes import SupportPairs


class TritonSupportProducts:
    """`sgsd_kernels.support.passes.SupportProducts`; sums run in a fixed order."""

    def logits(self, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        """[P, S] float32."""
        return gather_dot(hidden, weight, pairs)

    def hidden_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        """[N, D] in hidden's dtype: a row's entries are those of its pairs, in the order of pairs and slots."""
        entries = _live_entries(gradient)
        rows = pairs.rows[entries // gradient.shape[1]]
        return scatter_sum(weight, gradient, pairs.ids.flatten()[entries], entries, rows, hidden)

    def weight_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        """[V, D] in the weight's dtype: entries are sorted by token id, equal ones in the order of pairs and slots."""
        entries = _live_entries(gradient)
        ids, order = pairs.ids.flatten()[entries].sort(stable=True)
        entries = entries[order]
        return scatter_sum(hidden, gradient, pairs.rows[entries // gradient.shape[1]], entries, ids, weight)


def _live_entries(gradient: Tensor) -> Tensor:
    """Flat indices of what is not 0. Unused slots all name token 0, whose one program would walk them alone."""
    return gradient.flatten().nonzero().squeeze(-1)
