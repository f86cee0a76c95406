"""The student on a local support: a product with the few head rows that each token's support names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import refuse_second_derivative, without_autocast
from sgsd_kernels.head import HeadOptions, apply_options_, check_head, spans, undo_options_
from sgsd_kernels.local_support import masked_log_softmax
from sgsd_kernels.reference import accumulation_dtype

GATHER_LIMIT = 64 * 2**20 // 4
"""Head entries gathered at a time: 64 MiB of float32."""


def support_logprob(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    mask: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    gather_limit: int = GATHER_LIMIT,
) -> Tensor:
    """Log-probabilities of the tokens ``ids`` at each row, renormalised on the entries in ``mask``.

    Each (row, support) pair gathers its S rows of the head; pairs go through in groups of at most ``gather_limit``
    gathered entries (a single pair may exceed it), and backward gathers again. Pairs without an upstream gradient are
    skipped there.

    Args:
        hidden: [N, D]. weight: [V, D]; frozen, it costs no gradient and no buffer for one.
        ids: [N, K, S] int64 token ids. mask: [N, K, S] bool, slots in use (ids elsewhere are not read).
        bias, temperature, softcap, vocab_limit: as in `sgsd_kernels.linear_logprob`.
        gather_limit: entries of the head gathered at a time.

    Returns:
        [N, K, S] float32 nats (float64 for float64 inputs), -inf outside ``mask``; differentiable once in hidden,
        weight and bias.

    Raises:
        ValueError: shapes that do not fit, options out of range, an id outside the vocabulary (checked on the CPU).
        TypeError: a DTensor.
    """
    check_head(hidden, weight, bias)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    if ids.dim() != 3 or ids.shape[0] != hidden.shape[0] or mask.shape != ids.shape:
        raise ValueError(
            f"ids and mask must be [N, K, S] with hidden's N = {hidden.shape[0]}; "
            f"got {list(ids.shape)} and {list(mask.shape)}"
        )
    ids = ids.where(mask, 0)
    vocab_size = options.vocab_size(weight)
    if ids.device.type == "cpu" and ((ids < 0) | (ids >= vocab_size)).any():
        raise ValueError(f"ids must be token ids in [0, {vocab_size}); got {ids.min().item()} to {ids.max().item()}")
    result: Tensor = _SupportLogprob.apply(hidden, weight, bias, ids, mask, options, gather_limit)
    return result


class _SupportLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        mask: Tensor,
        options: HeadOptions,
        gather_limit: int,
    ) -> Tensor:
        dtype = accumulation_dtype(hidden.dtype, weight.dtype)
        pairs = _Pairs(hidden, weight, bias, ids, options, gather_limit)
        logits = torch.empty(pairs.ids.shape, dtype=dtype, device=hidden.device)
        with without_autocast(hidden.device):
            for group in pairs.groups(torch.arange(len(logits), device=hidden.device)):
                logits[group.pairs] = group.logits
        logprob = masked_log_softmax(logits, mask.flatten(0, 1)).reshape(ids.shape)
        ctx.save_for_backward(hidden, weight, bias, ids, mask, logprob)
        ctx.options, ctx.gather_limit = options, gather_limit
        return logprob

    @staticmethod
    def backward(
        ctx: Any, grad_logprob: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None, None]:
        refuse_second_derivative("support_logprob")
        hidden, weight, bias, ids, mask, logprob = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        upstream = torch.where(mask, grad_logprob, 0.0).flatten(0, 1)
        probability = logprob.flatten(0, 1).exp()
        dlogits = upstream - probability * upstream.sum(-1, keepdim=True)  # [pairs, S]
        grad_hidden = _zeros(hidden, logprob.dtype) if needs_hidden else None
        grad_weight = _zeros(weight, logprob.dtype) if needs_weight else None
        grad_bias = _zeros(bias, logprob.dtype) if needs_bias else None
        pairs = _Pairs(hidden, weight, bias, ids, ctx.options, ctx.gather_limit)
        live = (upstream != 0).any(dim=-1).nonzero().squeeze(-1)
        with without_autocast(hidden.device):
            for group in pairs.groups(live):
                draw = undo_options_(dlogits[group.pairs], group.logits, ctx.options)
                if grad_hidden is not None:
                    rows = torch.einsum("ps,psd->pd", draw, group.head_rows)
                    grad_hidden.index_put_((group.rows,), rows, accumulate=True)
                if grad_weight is not None:
                    outer = draw.unsqueeze(-1) * group.hidden.unsqueeze(1)
                    grad_weight.index_put_((group.ids,), outer, accumulate=True)
                if grad_bias is not None:
                    grad_bias.index_put_((group.ids,), draw, accumulate=True)
        return (
            _cast(grad_hidden, hidden),
            _cast(grad_weight, weight),
            _cast(grad_bias, bias),
            None,
            None,
            None,
            None,
        )


@dataclass(frozen=True, slots=True)
class _Group:
    """A bounded number P of (row, support) pairs."""

    pairs: Tensor
    """[P] indices of the pairs."""
    rows: Tensor
    """[P] row of hidden of each."""
    ids: Tensor
    """[P, S]."""
    hidden: Tensor
    """[P, D], accumulation dtype."""
    head_rows: Tensor
    """[P, S, D], accumulation dtype."""
    logits: Tensor
    """[P, S] final logits."""


class _Pairs:
    """The N * K (row, support) pairs against their head rows, group by group."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        options: HeadOptions,
        gather_limit: int,
    ) -> None:
        self.ids = ids.flatten(0, 1)  # [pairs, S]
        self._num_contexts = ids.shape[1]
        self._hidden, self._weight, self._bias = hidden, weight, bias
        self._options = options
        self._dtype = accumulation_dtype(hidden.dtype, weight.dtype)
        self._group_size = max(1, gather_limit // max(1, ids.shape[2] * hidden.shape[1]))

    def groups(self, pairs: Tensor) -> Iterator[_Group]:
        """The chosen ``pairs`` in order, a bounded number at a time."""
        for span in spans(len(pairs), self._group_size):
            chosen = pairs[span]
            ids, rows = self.ids[chosen], chosen // self._num_contexts
            hidden = self._hidden[rows].to(self._dtype)
            head_rows = self._weight[ids].to(self._dtype)
            logits = torch.einsum("pd,psd->ps", hidden, head_rows)
            if self._bias is not None:
                logits = logits + self._bias[ids].to(self._dtype)
            yield _Group(chosen, rows, ids, hidden, head_rows, apply_options_(logits, self._options))


def _zeros(like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(like.shape, dtype=dtype, device=like.device)


def _cast(gradient: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if gradient is None or like is None else gradient.to(like.dtype)
