"""`linear_divergence` as a function that autograd can differentiate, whatever passes it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope, refuse_second_derivative
from sgsd_kernels.divergence.passes import DivergencePasses, DivergenceRows, RowDivergence, TeacherHead
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.gradients import HeadGradients, head_gradients
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadSpan, Normalizer


def linear_divergence_by(
    passes: DivergencePasses,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher: TeacherHead,
    options: HeadOptions,
    divergence: Divergence,
    mask: Tensor | None,
) -> Tensor:
    """Divergence [N] by the given ``passes``; arguments as checked by `sgsd_kernels.linear_divergence`.

    Rows outside ``mask`` are left out before the head is touched, rows without an upstream gradient are left out of
    backward; each choice of rows synchronises the device once.
    """
    plan = _Plan(passes, options, divergence)
    frozen = (teacher.hidden, teacher.weight, teacher.bias, teacher.log_weight)
    result: Tensor = _LinearDivergence.apply(hidden, weight, bias, *frozen, mask, plan)
    return result


def kept_rows(mask: Tensor | None, hidden: Tensor) -> Tensor:
    """Indices of the rows that count."""
    if mask is None:
        return torch.arange(hidden.shape[0], device=hidden.device)
    return mask.nonzero().squeeze(-1)


def spread(values: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """``values`` of the chosen rows among ``num_rows``, 0 elsewhere."""
    if rows.numel() == num_rows:
        return values
    return values.new_zeros(num_rows, *values.shape[1:]).index_copy_(0, rows, values)


@dataclass(frozen=True, slots=True)
class _Plan:
    passes: DivergencePasses
    options: HeadOptions
    divergence: Divergence


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_hidden: Tensor,
        teacher_weight: Tensor | None,
        teacher_bias: Tensor | None,
        log_weight: Tensor | None,
        mask: Tensor | None,
        plan: _Plan,
    ) -> Tensor:
        teacher = TeacherHead(teacher_hidden, teacher_weight, teacher_bias, log_weight)
        with kernel_scope(hidden.device):
            kept = kept_rows(mask, hidden)
            found = plan.passes.measure(_select(hidden, weight, bias, teacher, plan, kept))
        normalizers = [found.student.row_max, found.student.log_normalizer]
        normalizers += [found.teachers.row_max, found.teachers.log_normalizer]
        tensors = (hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias, log_weight)
        ctx.save_for_backward(*tensors, kept, found.slope, *normalizers)
        ctx.plan = plan
        return spread(found.value, kept, hidden.shape[0])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("linear_divergence")
        *tensors, kept, slope, student_max, student_log, teacher_max, teacher_log = ctx.saved_tensors
        hidden, weight, bias = tensors[:3]
        plan: _Plan = ctx.plan
        upstream = upstream.to(slope.dtype)[kept]
        with kernel_scope(hidden.device):
            live = (upstream != 0).nonzero().squeeze(-1)
            found = RowDivergence(
                slope, slope, Normalizer(student_max, student_log), Normalizer(teacher_max, teacher_log)
            ).select(live)
            rows = _select(hidden, weight, bias, TeacherHead(*tensors[3:]), plan, kept[live])
            gradients = _gradients(plan.passes, rows, found, upstream[live], ctx.needs_input_grad[:3], hidden.dtype)
        grad_hidden = gradients.hidden
        if grad_hidden is not None:
            grad_hidden = spread(grad_hidden, kept[live], hidden.shape[0])
        return grad_hidden, gradients.weight, gradients.bias, None, None, None, None, None, None


def _select(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, teacher: TeacherHead, plan: _Plan, rows: Tensor
) -> DivergenceRows:
    return DivergenceRows.select(hidden, weight, bias, teacher, plan.options, plan.divergence, rows)


def _gradients(
    passes: DivergencePasses,
    rows: DivergenceRows,
    found: RowDivergence,
    upstream: Tensor,
    needs: tuple[bool, bool, bool],
    hidden_dtype: torch.dtype,
) -> HeadGradients:
    def chunk_gradient(block: slice, span: HeadSpan) -> Tensor:
        return passes.dlogits(rows, block, span, found, upstream)

    chunk = passes.gradient_chunk(rows)
    return head_gradients(rows.student, chunk, chunk_gradient, needs=needs, hidden_dtype=hidden_dtype)
