"""`linear_logprob` in plain torch without a [tokens, vocab] tensor: any device, float64-capable.

The vocabulary is walked in chunks, each against blocks of rows; a running maximum, sum and entropy sum per row is all
that forward keeps, and backward recomputes each chunk. The default chunk holds 64 MiB of float32 logits; a pass has at
most three such buffers alive, plus one chunk of the weight in the accumulation dtype (three in backward when the weight
learns) and [N, D] copies of hidden and its gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import refuse_second_derivative, without_autocast
from sgsd_kernels.head import (
    HeadOptions,
    apply_options_,
    gradient_factor,
    product,
    spans,
    undo_options_,
    working_copy,
)
from sgsd_kernels.reference import LogprobOutput, accumulation_dtype

ROW_CHUNK = 2048
VOCAB_CHUNK = 8192


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    entropy: bool = False,
    ignore_index: int = -100,
    row_chunk: int = ROW_CHUNK,
    vocab_chunk: int = VOCAB_CHUNK,
) -> LogprobOutput:
    """As `sgsd_kernels.linear_logprob`, which checks the tensors, with the sizes of a chunk.

    A chunk is ``row_chunk`` rows by ``vocab_chunk`` columns. The vocabulary is always cut in the same places, so a
    row's result does not depend on its batch beyond the rounding of the matrix product.
    """
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    if row_chunk < 1 or vocab_chunk < 1:
        raise ValueError(f"row_chunk and vocab_chunk must be at least 1; got {row_chunk} and {vocab_chunk}")
    plan = _Plan(options, ignore_index, entropy, row_chunk, vocab_chunk)
    logprob, lse, entropies = _LinearLogprob.apply(hidden, weight, bias, targets, plan)
    return LogprobOutput(logprob, lse, entropies if entropy else None)


@dataclass(frozen=True, slots=True)
class _Plan:
    options: HeadOptions
    ignore_index: int
    entropy: bool
    row_chunk: int
    vocab_chunk: int


class _LinearLogprob(torch.autograd.Function):
    """(logprob, lse, entropy) per row; gradients of hidden, weight and bias from those of logprob and lse."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor, Tensor]:
        with without_autocast(hidden.device):
            rows = _select(targets != plan.ignore_index)
            state = _scan(_Chunks(hidden, weight, bias, targets, rows, plan))
        normalizer = (_scatter(state.row_max, rows, hidden), _scatter(state.log_normalizer, rows, hidden))
        ctx.save_for_backward(hidden, weight, bias, targets, *normalizer)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        lse = state.row_max + state.log_normalizer
        entropy = state.entropy if state.entropy is not None else lse.new_zeros(0)
        outputs = (
            _scatter(state.target_logit - state.row_max - state.log_normalizer, rows, hidden),
            _scatter(lse, rows, hidden),
            _scatter(entropy, rows, hidden) if plan.entropy else entropy,
        )
        ctx.mark_non_differentiable(outputs[2])
        return outputs

    @staticmethod
    def backward(
        ctx: Any, grad_logprob: Tensor | None, grad_lse: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        refuse_second_derivative("linear_logprob")
        hidden, weight, bias, targets, row_max, log_normalizer = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if grad_logprob is None and grad_lse is None:
            return None, None, None, None, None
        zeros = row_max.new_zeros(1).expand_as(row_max)
        upstream = _Upstream(
            target=zeros if grad_logprob is None else grad_logprob.to(row_max.dtype),
            lse=zeros if grad_lse is None else grad_lse.to(row_max.dtype),
        )
        with without_autocast(hidden.device):
            is_live = (targets != ctx.plan.ignore_index) & ((upstream.target != 0) | (upstream.lse != 0))
            rows = _select(is_live)
            chunks = _Chunks(hidden, weight, bias, targets, rows, ctx.plan)
            normalizer = (row_max[rows], log_normalizer[rows])
            gradients = _Gradients(chunks, hidden.shape, weight, bias, (needs_hidden, needs_weight, needs_bias))
            _accumulate(chunks, _Upstream(upstream.target[rows], upstream.lse[rows]), normalizer, gradients)
            return *gradients.finish(rows, hidden), None, None


def _select(is_kept: Tensor) -> Tensor:
    """Indices of the kept rows (one device synchronisation: the number of rows decides the work)."""
    return is_kept.nonzero().squeeze(-1)


def _scatter(values: Tensor, rows: Tensor, hidden: Tensor) -> Tensor:
    """``values`` of the chosen rows in a vector over all rows, 0 elsewhere."""
    return values.new_zeros(hidden.shape[0]).index_copy_(0, rows, values)


@dataclass(frozen=True, slots=True)
class _Span:
    """One chunk of the vocabulary."""

    columns: slice
    weight: Tensor
    """[columns, D], as `product` wants it."""
    bias: Tensor | None


class _Chunks:
    """The chosen rows against the head, chunk by chunk."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: Tensor, plan: _Plan
    ) -> None:
        self.dtype = accumulation_dtype(hidden.dtype, weight.dtype)
        self.plan = plan
        is_all = rows.numel() == hidden.shape[0]
        self.hidden = working_copy(hidden if is_all else hidden[rows])
        self.targets = targets[rows]
        self._weight, self._bias = weight, bias
        self.vocab_size = plan.options.vocab_size(weight)

    def vocabulary(self) -> Iterator[_Span]:
        """The vocabulary's chunks; none when there is no row."""
        if self.targets.numel() == 0:
            return
        for columns in spans(self.vocab_size, self.plan.vocab_chunk):
            bias = None if self._bias is None else self._bias[columns].to(self.dtype)
            yield _Span(columns, working_copy(self._weight[columns]), bias)

    def rows(self) -> Iterator[slice]:
        return spans(self.targets.numel(), self.plan.row_chunk)

    def logits(self, rows: slice, span: _Span) -> Tensor:
        """Final logits [rows, columns] in the accumulation dtype, free to be overwritten."""
        raw = product(self.hidden[rows], span.weight.T)
        if span.bias is not None:
            raw.add_(span.bias)
        return apply_options_(raw, self.plan.options)

    def target_columns(self, rows: slice, span: _Span) -> tuple[Tensor, Tensor]:
        """Column of each row's target in this chunk [rows, 1] (any column when it is not here), and whether it is."""
        column = self.targets[rows] - span.columns.start
        width = span.columns.stop - span.columns.start
        return column.clamp(0, width - 1).unsqueeze(-1), (column >= 0) & (column < width)


class _State:
    """What forward carries per row from chunk to chunk: everything relative to the running maximum."""

    def __init__(self, like: Tensor, entropy: bool) -> None:
        self.row_max = like.new_full((like.shape[0],), -torch.inf)
        self.total = torch.zeros_like(self.row_max)
        self.centred = torch.zeros_like(self.row_max) if entropy else None  # sum of (z - max) exp(z - max)
        self.target_logit = torch.full_like(self.row_max, -torch.inf)

    def absorb(self, rows: slice, logits: Tensor) -> None:
        """Merge a chunk, overwriting ``logits``. A row that is -inf so far keeps a maximum of -inf and a total of 0."""
        old_max = self.row_max[rows]
        new_max = torch.maximum(old_max, logits.amax(dim=-1))
        anchor = new_max.masked_fill(new_max == -torch.inf, 0.0)
        shift = (old_max - anchor).masked_fill(old_max == -torch.inf, 0.0)
        scale = shift.exp()
        logits.sub_(anchor.unsqueeze(-1))
        weights = logits.exp()
        if self.centred is not None:
            moved = scale * (self.centred[rows] + shift * self.total[rows])
            logits.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf is NaN
            self.centred[rows] = moved + logits.mul_(weights).sum(-1)
        self.total[rows] = scale * self.total[rows] + weights.sum(-1)
        self.row_max[rows] = new_max

    @property
    def log_normalizer(self) -> Tensor:
        """lse relative to the row's maximum: kept apart from it, so that large offsets cost no digits."""
        return self.total.log()

    @property
    def entropy(self) -> Tensor | None:
        return None if self.centred is None else self.log_normalizer - self.centred / self.total


def _scan(chunks: _Chunks) -> _State:
    state = _State(chunks.hidden.new_empty(chunks.targets.shape, dtype=chunks.dtype), chunks.plan.entropy)
    for span in chunks.vocabulary():
        for rows in chunks.rows():
            logits = chunks.logits(rows, span)
            column, is_here = chunks.target_columns(rows, span)
            found = logits.gather(-1, column).squeeze(-1)
            state.target_logit[rows] = torch.where(is_here, found, state.target_logit[rows])
            state.absorb(rows, logits)
    return state


@dataclass(frozen=True, slots=True)
class _Upstream:
    """Gradients per row of logprob (that is: of the target's logit minus lse) and of lse."""

    target: Tensor
    lse: Tensor


class _Gradients:
    """Accumulators in the accumulation dtype, only for the inputs that learn."""

    def __init__(
        self,
        chunks: _Chunks,
        hidden_shape: torch.Size,
        weight: Tensor,
        bias: Tensor | None,
        needs: tuple[bool, bool, bool],
    ) -> None:
        needs_hidden, needs_weight, needs_bias = needs
        num_rows = chunks.targets.numel()
        self.hidden = (
            torch.zeros(num_rows, hidden_shape[1], dtype=chunks.dtype, device=weight.device) if needs_hidden else None
        )
        self.weight = torch.zeros_like(weight) if needs_weight else None
        self.bias = torch.zeros_like(bias) if needs_bias and bias is not None else None

    def add(self, chunks: _Chunks, rows: slice, span: _Span, dlogits: Tensor, parts: _SpanParts) -> None:
        factor = gradient_factor(dlogits, span.weight.dtype)
        if self.hidden is not None:
            self.hidden[rows] += product(factor, span.weight)
        if parts.weight is not None:
            parts.weight += product(factor.T, chunks.hidden[rows])
        if parts.bias is not None:
            parts.bias += dlogits.sum(0)

    def write(self, span: _Span, parts: _SpanParts) -> None:
        """Each chunk of the vocabulary is complete after its rows: written once, in the final dtype."""
        if self.weight is not None and parts.weight is not None:
            self.weight[span.columns] = parts.weight.to(self.weight.dtype)
        if self.bias is not None and parts.bias is not None:
            self.bias[span.columns] = parts.bias.to(self.bias.dtype)

    def finish(self, rows: Tensor, hidden: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.hidden is None:
            return None, self.weight, self.bias
        grad_hidden = self.hidden.to(hidden.dtype)
        if rows.numel() != hidden.shape[0]:
            grad_hidden = torch.zeros_like(hidden).index_copy_(0, rows, grad_hidden)
        return grad_hidden, self.weight, self.bias


@dataclass(slots=True)
class _SpanParts:
    """One vocabulary chunk's gradient of weight and bias, in the accumulation dtype."""

    weight: Tensor | None
    bias: Tensor | None


def _accumulate(chunks: _Chunks, upstream: _Upstream, normalizer: tuple[Tensor, Tensor], gradients: _Gradients) -> None:
    """Recompute each chunk's distribution and push ``target * onehot + (lse - target) * p`` through the head."""
    row_max, log_normalizer = normalizer
    for span in chunks.vocabulary():
        shape = span.weight.shape
        parts = _SpanParts(
            weight=None if gradients.weight is None else row_max.new_zeros(shape),
            bias=None if gradients.bias is None else row_max.new_zeros(shape[0]),
        )
        for rows in chunks.rows():
            logits = chunks.logits(rows, span)
            dlogits = logits.sub(row_max[rows].unsqueeze(-1)).sub_(log_normalizer[rows].unsqueeze(-1)).exp_()
            dlogits.mul_((upstream.lse - upstream.target)[rows].unsqueeze(-1))
            column, is_here = chunks.target_columns(rows, span)
            onehot = torch.where(is_here, upstream.target[rows], 0.0).unsqueeze(-1)
            dlogits.scatter_(-1, column, dlogits.gather(-1, column) + onehot)
            gradients.add(chunks, rows, span, undo_options_(dlogits, logits, chunks.plan.options), parts)
        gradients.write(span, parts)
