"""What the implementations of the local support work on, and what they have to provide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sgsd_kernels.head.passes import HeadRows, HeadSpan

LOWEST_RANK = 2**32 - 1


class TopK(NamedTuple):
    """Ranked by the float32 logit; ties go to the lowest id."""

    ids: Tensor
    """[R, k] int64, in falling order."""
    logits: Tensor
    """[R, k] final logits; -inf in slots without a token (more slots than tokens, or tokens of logit -inf)."""
    target_logit: Tensor
    """[R] the target's final logit; -inf where it is not in the vocabulary."""


class Ranking(Protocol):
    """The best columns of each row so far."""

    def absorb(self, block: slice, rows: HeadRows, span: HeadSpan) -> None:
        """Merge the columns of ``span`` into the rows of ``block``, which are ``rows``."""
        ...

    def finish(self) -> TopK: ...


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


def ranking_keys(logits: Tensor, columns: Tensor) -> Tensor:
    """int64 keys in the order of the float32 logits, and of falling column among equals."""
    bits = (logits.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 equal
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return ordered.to(torch.int64).mul_(2**32).add_(LOWEST_RANK - columns)


def logits_of_keys(keys: Tensor) -> Tensor:
    """The float32 logits that `ranking_keys` was given; -inf for keys of no column."""
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(torch.int32)
    logits = bits.view(torch.float32)
    return torch.where(logits.isnan(), -torch.inf, logits)


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax over the last dimension of the entries in ``mask``; -inf elsewhere, also where there is none."""
    logits = logits.masked_fill(~mask, -torch.inf)
    logprobs = logits.log_softmax(dim=-1)
    return logprobs.masked_fill(~mask, -torch.inf)
