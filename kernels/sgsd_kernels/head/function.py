"""`linear_logprob` as a function that autograd can differentiate, whatever passes it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope, refuse_second_derivative
from sgsd_kernels.head.gradients import HeadGradients, head_gradients
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadPasses, HeadRows, HeadSpan, Normalizer, Upstream
from sgsd_kernels.head.reference import LogprobOutput


def linear_logprob_by(
    passes: HeadPasses,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None,
    options: HeadOptions,
    entropy: bool,
    ignore_index: int,
) -> LogprobOutput:
    """As `sgsd_kernels.linear_logprob`, which checks the tensors, by the given ``passes``.

    Ignored rows are left out before the head is touched; rows without an upstream gradient are left out of backward.
    Each choice of rows synchronises the device once.
    """
    plan = _Plan(passes, options, ignore_index, entropy)
    logprob, lse, entropies = _LinearLogprob.apply(hidden, weight, bias, targets, plan)
    return LogprobOutput(logprob, lse, entropies if entropy else None)


def row_gradients(
    passes: HeadPasses,
    rows: HeadRows,
    normalizer: Normalizer,
    upstream: Upstream,
    *,
    needs: tuple[bool, bool, bool],
    hidden_dtype: torch.dtype,
) -> HeadGradients:
    """Gradients of sum_r (target_r * logprob_r + lse_r * lse_r) in hidden, weight and bias."""

    def chunk_gradient(block: slice, span: HeadSpan) -> Tensor:
        return passes.dlogits(rows.block(block), span, normalizer.block(block), upstream.block(block))

    return head_gradients(rows, passes.gradient_chunk(rows), chunk_gradient, needs=needs, hidden_dtype=hidden_dtype)


@dataclass(frozen=True, slots=True)
class _Plan:
    passes: HeadPasses
    options: HeadOptions
    ignore_index: int
    entropy: bool


class _LinearLogprob(torch.autograd.Function):
    """(logprob, lse, entropy) per row; gradients of hidden, weight and bias from those of logprob and lse."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor, Tensor]:
        with kernel_scope(hidden.device):
            kept = (targets != plan.ignore_index).nonzero().squeeze(-1)
            rows = HeadRows.select(hidden, weight, bias, targets, plan.options, kept)
            statistics = plan.passes.scan(rows, entropy=plan.entropy)
        log_normalizer = statistics.log_normalizer
        saved = (_scatter(statistics.row_max, kept, hidden), _scatter(log_normalizer, kept, hidden))
        ctx.save_for_backward(hidden, weight, bias, targets, *saved)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        entropy = statistics.entropy
        outputs = (
            _scatter(statistics.logprob, kept, hidden),
            _scatter(statistics.lse, kept, hidden),
            log_normalizer.new_zeros(0) if entropy is None else _scatter(entropy, kept, hidden),
        )
        ctx.mark_non_differentiable(outputs[2])
        return outputs

    @staticmethod
    def backward(
        ctx: Any, grad_logprob: Tensor | None, grad_lse: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        refuse_second_derivative("linear_logprob")
        hidden, weight, bias, targets, row_max, log_normalizer = ctx.saved_tensors
        if grad_logprob is None and grad_lse is None:
            return None, None, None, None, None
        plan: _Plan = ctx.plan
        zeros = row_max.new_zeros(1).expand_as(row_max)
        target = zeros if grad_logprob is None else grad_logprob.to(row_max.dtype)
        lse = zeros if grad_lse is None else grad_lse.to(row_max.dtype)
        with kernel_scope(hidden.device):
            is_live = (targets != plan.ignore_index) & ((target != 0) | (lse != 0))
            live = is_live.nonzero().squeeze(-1)
            gradients = row_gradients(
                plan.passes,
                HeadRows.select(hidden, weight, bias, targets, plan.options, live),
                Normalizer(row_max[live], log_normalizer[live]),
                Upstream(target[live], lse[live]),
                needs=ctx.needs_input_grad[:3],
                hidden_dtype=hidden.dtype,
            )
        grad_hidden = gradients.hidden
        if grad_hidden is not None and live.numel() != hidden.shape[0]:
            grad_hidden = torch.zeros_like(hidden).index_copy_(0, live, grad_hidden)
        return grad_hidden, gradients.weight, gradients.bias, None, None


def _scatter(values: Tensor, rows: Tensor, hidden: Tensor) -> Tensor:
    """``values`` of the chosen rows in a vector over all rows, 0 elsewhere."""
    if rows.numel() == hidden.shape[0]:
        return values
    return values.new_zeros(hidden.shape[0]).index_copy_(0, rows, values)
