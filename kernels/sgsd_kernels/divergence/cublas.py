"""The divergence by the library's product into bounded float32 chunks, and a Triton kernel over their rows: ``cublas``.

Forward takes rows in blocks of which two sets of logits over the whole vocabulary stay within `FORWARD_BYTES`: the
teachers' mixture so far and the next teacher's, in the end the student's. So each row is multiplied once per teacher
and once for the student.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope, refuse_second_derivative
from sgsd_kernels.divergence.chunked import span_of_teachers
from sgsd_kernels.divergence.function import kept_rows, linear_divergence_by, spread
from sgsd_kernels.divergence.kernels.rows import absorb_teacher_, divergence_rows_
from sgsd_kernels.divergence.passes import DivergenceRows, RowDivergence, TeacherHead
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadSpan, Normalizer
from sgsd_kernels.head.products import product, spans, working_copy

FORWARD_BYTES = 256 * 2**20
"""Of float32 logits at a time in forward; a gradient made there in bfloat16 adds a quarter."""
ROW_TILE = 64
"""Blocks of more rows than this are a multiple of it, so that the library's tiles are full."""
ROW_CHUNK = 2048
VOCAB_CHUNK = 8192
"""A chunk in backward is 64 MiB of float32 logits, of which two are alive, and a gradient of 32 MiB in bfloat16."""


def linear_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher: TeacherHead,
    options: HeadOptions,
    divergence: Divergence,
    mask: Tensor | None,
    passes: CublasDivergence | None = None,
) -> Tensor:
    """Divergence [N]; arguments as checked by `sgsd_kernels.linear_divergence`.

    Where hidden learns and the head does not, forward also makes hidden's gradient for an upstream gradient of 1 while
    it has the logits: one more product, and [N, D] kept until backward, which only scales its rows. Against making the
    logits again that saves 1 + K products for each row with an upstream gradient, costs one for each row without, and
    rounds the gradient to hidden's dtype once more. A head that learns makes them again, chunk by chunk.
    """
    passes = passes or CublasDivergence()
    head_learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    if not torch.is_grad_enabled() or head_learns or not hidden.requires_grad:
        return linear_divergence_by(passes, hidden, weight, bias, teacher, options, divergence, mask)
    frozen = (teacher.hidden, teacher.weight, teacher.bias, teacher.log_weight)
    result: Tensor = _FrozenHead.apply(hidden, weight, bias, *frozen, mask, (passes, options, divergence))
    return result


class _FrozenHead(torch.autograd.Function):
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
        plan: tuple[CublasDivergence, HeadOptions, Divergence],
    ) -> Tensor:
        passes, options, divergence = plan
        teacher = TeacherHead(teacher_hidden, teacher_weight, teacher_bias, log_weight)
        with kernel_scope(hidden.device):
            kept = kept_rows(mask, hidden)
            rows = DivergenceRows.select(hidden, weight, bias, teacher, options, divergence, kept)
            unit_gradient = torch.empty(rows.student.hidden.shape, dtype=hidden.dtype, device=hidden.device)
            found = passes.measure(rows, unit_gradient)
        ctx.save_for_backward(unit_gradient, kept)
        ctx.num_rows = hidden.shape[0]
        return spread(found.value, kept, hidden.shape[0])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("linear_divergence")
        unit_gradient, kept = ctx.saved_tensors
        scale = upstream[kept].unsqueeze(-1)
        gradient = torch.where(scale == 0, 0.0, unit_gradient * scale).to(unit_gradient.dtype)
        return (spread(gradient, kept, ctx.num_rows), *[None] * 8)


@dataclass(frozen=True, slots=True)
class CublasDivergence:
    """`sgsd_kernels.divergence.passes.DivergencePasses`."""

    forward_bytes: int = FORWARD_BYTES
    row_chunk: int = ROW_CHUNK
    vocab_chunk: int = VOCAB_CHUNK

    def measure(self, rows: DivergenceRows, unit_gradient: Tensor | None = None) -> RowDivergence:
        """Forward; also fills ``unit_gradient`` [R, D] with the gradient of each row's value in its hidden state."""
        found = _empty(rows)
        for block, span in self._blocks(rows):
            dlogits = self._block(rows, block, span, found, None, measure=True, gradient=unit_gradient is not None)
            if unit_gradient is not None:
                unit_gradient[block] = _through_head(dlogits, span.weight)
            del dlogits  # before the next block's logits
        return found

    def gradient_chunk(self, rows: DivergenceRows) -> tuple[int, int]:
        return self.row_chunk, self.vocab_chunk

    def dlogits(
        self, rows: DivergenceRows, block: slice, span: HeadSpan, found: RowDivergence, upstream: Tensor
    ) -> Tensor:
        return self._block(rows, block, span, found, upstream, measure=False, gradient=True)

    def _blocks(self, rows: DivergenceRows) -> Iterator[tuple[slice, HeadSpan]]:
        """Blocks of rows by the whole vocabulary."""
        vocab_size = rows.student.vocab_size
        span = HeadSpan(slice(0, vocab_size), working_copy(rows.student.weight[:vocab_size]), None)
        num_rows = max(1, self.forward_bytes // (2 * 4 * vocab_size))
        for block in spans(rows.num_rows, num_rows // ROW_TILE * ROW_TILE or num_rows):
            yield block, span

    def _block(
        self,
        rows: DivergenceRows,
        block: slice,
        span: HeadSpan,
        found: RowDivergence,
        upstream: Tensor | None,
        *,
        measure: bool,
        gradient: bool,
    ) -> Tensor:
        teacher_span = span_of_teachers(rows, span)
        teacher: Tensor | None = None
        for index in range(rows.num_teachers):
            place = rows.teacher_rows(index, block)
            part = rows.teachers.block(place)
            logits = _head_product(part.hidden, teacher_span.weight)
            if rows.log_weight is None:
                teacher = logits
                break
            share = rows.log_weight[index, block]
            normalizer = found.teachers.block(place)
            teacher = absorb_teacher_(teacher, logits, part, span.columns, normalizer, share, measure=measure)
            del logits  # before the next teacher's
        assert teacher is not None
        student = _head_product(rows.student.hidden[block], span.weight)
        first = rows.teacher_rows(0, block)
        student_found, teacher_found = found.student.block(block), found.teachers.block(first)
        return divergence_rows_(
            student,
            teacher,
            rows.student.block(block),
            rows.teachers.bias,
            rows.divergence,
            span.columns,
            RowDivergence(found.value[block], found.slope[block], student_found, teacher_found),
            None if upstream is None else upstream[block].contiguous(),
            is_mixture=rows.log_weight is not None,
            measure=measure,
            gradient=gradient,
        )


def _head_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """``hidden @ weight.T`` [R, columns], without a cast of the whole head where the dtypes differ."""
    if hidden.dtype == weight.dtype:
        return product(hidden, weight.T)
    out = torch.empty(hidden.shape[0], weight.shape[0], dtype=torch.float32, device=hidden.device)
    for columns in spans(weight.shape[0], VOCAB_CHUNK):
        out[:, columns] = product(hidden, weight[columns].T)
    return out


def _through_head(dlogits: Tensor, weight: Tensor) -> Tensor:
    """``dlogits @ weight`` [R, D], likewise."""
    if dlogits.dtype == weight.dtype:
        return product(dlogits, weight)
    out = torch.zeros(dlogits.shape[0], weight.shape[1], dtype=torch.float32, device=dlogits.device)
    for columns in spans(weight.shape[0], VOCAB_CHUNK):
        out += product(dlogits[:, columns], weight[columns])
    return out


def _empty(rows: DivergenceRows) -> RowDivergence:
    """Room for what forward finds."""

    def empty(num_rows: int) -> Tensor:
        return torch.empty(num_rows, dtype=torch.float32, device=rows.student.hidden.device)

    student = Normalizer(empty(rows.num_rows), empty(rows.num_rows))
    teachers = Normalizer(empty(rows.teachers.num_rows), empty(rows.teachers.num_rows))
    return RowDivergence(empty(rows.num_rows), empty(rows.num_rows), student, teachers)
