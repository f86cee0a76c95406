"""The head in plain torch without a [tokens, vocab] tensor: any device, float64-capable.

The vocabulary is walked in chunks, each against blocks of rows; a running maximum, sum and entropy sum per row is all
that forward keeps, and backward recomputes each chunk. The default chunk holds 64 MiB of float32 logits; a pass has at
most three such buffers alive, plus one chunk of the weight in the accumulation dtype (three in backward when the weight
learns) and [N, D] copies of hidden and its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.head.function import linear_logprob_by
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer, RowStatistics, Upstream
from sgsd_kernels.head.products import apply_options_, gradient_factor, product, spans, undo_options_
from sgsd_kernels.head.reference import LogprobOutput

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
    return linear_logprob_by(
        ChunkedPasses(row_chunk, vocab_chunk),
        hidden,
        weight,
        targets,
        bias=bias,
        options=options,
        entropy=entropy,
        ignore_index=ignore_index,
    )


@dataclass(frozen=True, slots=True)
class ChunkedPasses:
    """`sgsd_kernels.head.passes.HeadPasses` in torch."""

    row_chunk: int = ROW_CHUNK
    vocab_chunk: int = VOCAB_CHUNK

    def __post_init__(self) -> None:
        if self.row_chunk < 1 or self.vocab_chunk < 1:
            raise ValueError(
                f"row_chunk and vocab_chunk must be at least 1; got {self.row_chunk} and {self.vocab_chunk}"
            )

    def scan(self, rows: HeadRows, *, entropy: bool) -> RowStatistics:
        statistics = RowStatistics.empty(rows.num_rows, entropy, rows.dtype, rows.hidden.device)
        for span in rows.vocabulary(self.vocab_chunk):
            for block in spans(rows.num_rows, self.row_chunk):
                part = rows.block(block)
                logits = chunk_logits(part, span)
                column, is_here = part.target_columns(span)
                found = logits.gather(-1, column).squeeze(-1)
                running = statistics.block(block)
                running.target_logit.copy_(torch.where(is_here, found, running.target_logit))
                absorb_(running, logits)
        return statistics

    def gradient_chunk(self, rows: HeadRows) -> tuple[int, int]:
        return self.row_chunk, self.vocab_chunk

    def dlogits(self, rows: HeadRows, span: HeadSpan, normalizer: Normalizer, upstream: Upstream) -> Tensor:
        logits = chunk_logits(rows, span)
        dlogits = logits.sub(normalizer.row_max.unsqueeze(-1)).sub_(normalizer.log_normalizer.unsqueeze(-1)).exp_()
        dlogits.mul_((upstream.lse - upstream.target).unsqueeze(-1))
        column, is_here = rows.target_columns(span)
        onehot = torch.where(is_here, upstream.target, 0.0).unsqueeze(-1)
        dlogits.scatter_(-1, column, dlogits.gather(-1, column) + onehot)
        return gradient_factor(undo_options_(dlogits, logits, rows.options), rows.weight.dtype)


def chunk_logits(rows: HeadRows, span: HeadSpan) -> Tensor:
    """Final logits [R, columns] in the accumulation dtype, free to be overwritten."""
    raw = product(rows.hidden, span.weight.T)
    if span.bias is not None:
        raw.add_(span.bias)
    return apply_options_(raw, rows.options)


def absorb_(running: RowStatistics, logits: Tensor) -> None:
    """Merge a chunk into the ``running`` statistics but for the target, overwriting ``logits``.

    A row that is -inf so far keeps a maximum of -inf and a total of 0.
    """
    new_max = torch.maximum(running.row_max, logits.amax(dim=-1))
    anchor = new_max.masked_fill(new_max == -torch.inf, 0.0)
    shift = (running.row_max - anchor).masked_fill(running.row_max == -torch.inf, 0.0)
    scale = shift.exp()
    logits.sub_(anchor.unsqueeze(-1))
    weights = logits.exp()
    if running.centred is not None:
        moved = scale * (running.centred + shift * running.total)
        logits.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf is NaN
        running.centred.copy_(moved + logits.mul_(weights).sum(-1))
    running.total.copy_(scale * running.total + weights.sum(-1))
    running.row_max.copy_(new_max)
