"""The divergence in plain torch without a [tokens, vocab] tensor: any device, float64-capable.

The vocabulary is walked twice: once for the log-sum-exp of the student and of each teacher, once for the entries of the
divergence, which are summed as they are (a difference of expectations and log-sum-exps would cancel). Backward
recomputes each chunk. The default chunk holds 16 MiB of float32 logits; up to eight such buffers are alive at a time,
besides what `sgsd_kernels.head.chunked` needs for the log-sum-exps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.divergence.passes import DivergenceRows, RowDivergence
from sgsd_kernels.head.chunked import VOCAB_CHUNK, ChunkedPasses, chunk_logits
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer
from sgsd_kernels.head.products import gradient_factor, spans, undo_options_, working_copy

ROW_CHUNK = 512


@dataclass(frozen=True, slots=True)
class ChunkedDivergence:
    """`sgsd_kernels.divergence.passes.DivergencePasses` in torch, ``row_chunk`` by ``vocab_chunk`` at a time."""

    row_chunk: int = ROW_CHUNK
    vocab_chunk: int = VOCAB_CHUNK

    def measure(self, rows: DivergenceRows) -> RowDivergence:
        student = self._normalizer(rows.student)
        teachers = self._normalizer(rows.teachers)
        value = torch.zeros_like(student.row_max)
        slope = torch.zeros_like(value)
        for span in rows.student.vocabulary(self.vocab_chunk):
            teacher_span = span_of_teachers(rows, span)
            for block in spans(rows.num_rows, self.row_chunk):
                logprob = log_softmax_(chunk_logits(rows.student.block(block), span), student.block(block))
                mixture = mixture_logprob(rows, block, teacher_span, teachers)
                entry, entry_slope = rows.divergence.entries(logprob, mixture)
                value[block] += entry.sum(-1)
                slope[block] += entry_slope.sum(-1)
        return RowDivergence(value, slope, student, teachers)

    def gradient_chunk(self, rows: DivergenceRows) -> tuple[int, int]:
        return self.row_chunk, self.vocab_chunk

    def dlogits(
        self, rows: DivergenceRows, block: slice, span: HeadSpan, found: RowDivergence, upstream: Tensor
    ) -> Tensor:
        part = rows.student.block(block)
        logits = chunk_logits(part, span)
        student = found.student.block(block)
        logprob = logits.sub(student.row_max.unsqueeze(-1)).sub_(student.log_normalizer.unsqueeze(-1))
        mixture = mixture_logprob(rows, block, span_of_teachers(rows, span), found.teachers)
        _, dlogits = rows.divergence.entries(logprob, mixture)
        dlogits.sub_(logprob.exp_().mul_(found.slope[block].unsqueeze(-1)))
        dlogits.mul_(upstream[block].unsqueeze(-1))
        return gradient_factor(undo_options_(dlogits, logits, part.options), part.weight.dtype)

    def _normalizer(self, rows: HeadRows) -> Normalizer:
        statistics = ChunkedPasses(self.row_chunk, self.vocab_chunk).scan(rows, entropy=False)
        return Normalizer(statistics.row_max, statistics.log_normalizer)


def span_of_teachers(rows: DivergenceRows, span: HeadSpan) -> HeadSpan:
    """The same columns of the teachers' head."""
    teachers = rows.teachers
    if teachers.weight is rows.student.weight:
        return span
    bias = None if teachers.bias is None else teachers.bias[span.columns].to(teachers.dtype)
    return HeadSpan(span.columns, working_copy(teachers.weight[span.columns]), bias)


def mixture_logprob(rows: DivergenceRows, block: slice, span: HeadSpan, normalizer: Normalizer) -> Tensor:
    """log sum_k w_k p_k [block, columns], with one teacher's chunk of logits alive besides it."""
    mixture: Tensor | None = None
    for teacher in range(rows.num_teachers):
        place = rows.teacher_rows(teacher, block)
        logprob = log_softmax_(chunk_logits(rows.teachers.block(place), span), normalizer.block(place))
        if rows.log_weight is not None:
            logprob.add_(rows.log_weight[teacher, block].unsqueeze(-1))
        mixture = logprob if mixture is None else torch.logaddexp(mixture, logprob, out=mixture)
    assert mixture is not None
    return mixture


def log_softmax_(logits: Tensor, normalizer: Normalizer) -> Tensor:
    """Log-probabilities from final ``logits``, in place."""
    return logits.sub_(normalizer.row_max.unsqueeze(-1)).sub_(normalizer.log_normalizer.unsqueeze(-1))
