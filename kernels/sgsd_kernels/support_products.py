"""Products of hidden states with the few head rows that each (row, support) pair names, in plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sgsd_kernels.head import spans
from sgsd_kernels.reference import accumulation_dtype

GATHER_LIMIT = 64 * 2**20 // 4
"""Head entries gathered at a time: 64 MiB of float32."""


@dataclass(frozen=True, slots=True)
class SupportPairs:
    """P (row, support) pairs of S slots over N rows of hidden states."""

    rows: Tensor
    """[P] int64: the row of hidden of each pair, rising."""
    ids: Tensor
    """[P, S] int64 token ids; valid in every slot."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, pairs: Tensor) -> SupportPairs:
        """The chosen pairs (indices in rising order)."""
        return SupportPairs(self.rows[pairs], self.ids[pairs])


class SupportProducts(Protocol):
    """What an implementation of `support_logprob` must be able to do; everything accumulates in float32 or more."""

    def logits(self, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        """[P, S]: hidden[row] . weight[id]."""
        ...

    def hidden_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        """[N, D] from the gradient [P, S] of the logits."""
        ...

    def weight_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        """[V, D] from the gradient [P, S] of the logits."""
        ...


@dataclass(frozen=True, slots=True)
class GatheredProducts:
    """Pairs go through in groups of at most ``gather_limit`` gathered head entries (a single pair may exceed it)."""

    gather_limit: int = GATHER_LIMIT

    def logits(self, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        result = torch.empty(
            pairs.ids.shape, dtype=accumulation_dtype(hidden.dtype, weight.dtype), device=hidden.device
        )
        for group, part in self._groups(hidden, pairs):
            head_rows = weight[part.ids].to(result.dtype)
            result[group] = torch.einsum("pd,psd->ps", hidden[part.rows].to(result.dtype), head_rows)
        return result

    def hidden_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        result = torch.zeros(hidden.shape, dtype=gradient.dtype, device=hidden.device)
        for group, part in self._groups(hidden, pairs):
            head_rows = weight[part.ids].to(gradient.dtype)
            summands = torch.einsum("ps,psd->pd", gradient[group], head_rows)
            result.index_put_((part.rows,), summands, accumulate=True)
        return result

    def weight_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        result = torch.zeros(weight.shape, dtype=gradient.dtype, device=weight.device)
        for group, part in self._groups(hidden, pairs):
            outer = gradient[group].unsqueeze(-1) * hidden[part.rows].to(gradient.dtype).unsqueeze(1)
            result.index_put_((part.ids,), outer, accumulate=True)
        return result

    def _groups(self, hidden: Tensor, pairs: SupportPairs) -> Iterator[tuple[slice, SupportPairs]]:
        size = max(1, self.gather_limit // max(1, pairs.ids.shape[1] * hidden.shape[1]))
        for group in spans(len(pairs), size):
            yield group, SupportPairs(pairs.rows[group], pairs.ids[group])
