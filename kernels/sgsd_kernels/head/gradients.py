"""From the gradient of logits, chunk by chunk, to the gradients of hidden states, weight and bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.head.passes import HeadRows, HeadSpan
from sgsd_kernels.head.products import product, spans

WEIGHT_PART_LIMIT = 64 * 2**20 // 4
"""Entries of the weight's gradient that are accumulated at a time: 64 MiB of float32."""
COLUMN_TILE = 256
"""Chunks of more columns than this are a multiple of it: every row of their gradient is then aligned, for kernels and
for the library's products."""

ChunkGradient = Callable[[slice, HeadSpan], Tensor]
"""(rows, span) -> dlogits [rows, columns] of the head's product."""


@dataclass(frozen=True, slots=True)
class HeadGradients:
    """None for what does not learn."""

    hidden: Tensor | None
    """[R, D] in ``hidden_dtype``."""
    weight: Tensor | None
    """[V, D] in the weight's dtype."""
    bias: Tensor | None
    """[V] in the bias's dtype."""


def head_gradients(
    rows: HeadRows,
    chunk: tuple[int, int],
    chunk_gradient: ChunkGradient,
    *,
    needs: tuple[bool, bool, bool],
    hidden_dtype: torch.dtype,
) -> HeadGradients:
    """Push ``chunk_gradient`` through the head, in products accumulated in float32.

    A frozen head is walked row block by row block, with a float32 [row_chunk, D] accumulator. A head that learns is
    walked vocabulary chunk by vocabulary chunk: each chunk of its gradient is complete after its rows and written once
    in the final dtype, while hidden's gradient is accumulated in float32 [R, D].

    Args:
        rows: What goes backward.
        chunk: Rows and columns of a chunk.
        chunk_gradient: The gradient of one chunk of logits.
        needs: Whether hidden, weight and bias learn.
        hidden_dtype: Of the gradient of hidden.
    """
    needs_hidden, needs_weight, needs_bias = needs
    if not (needs_weight or (needs_bias and rows.bias is not None)):
        hidden = _through_frozen_head(rows, chunk, chunk_gradient, hidden_dtype) if needs_hidden else None
        return HeadGradients(hidden, None, None)
    return _through_learning_head(rows, chunk, chunk_gradient, needs, hidden_dtype)


def columns_of_weight_part(width: int, most: int) -> int:
    """Columns of which the weight's gradient [columns, ``width``] keeps to `WEIGHT_PART_LIMIT`; at most ``most``."""
    columns = min(most, WEIGHT_PART_LIMIT // width)
    return max(1, columns // COLUMN_TILE * COLUMN_TILE or columns)


def _through_frozen_head(
    rows: HeadRows, chunk: tuple[int, int], chunk_gradient: ChunkGradient, hidden_dtype: torch.dtype
) -> Tensor:
    result = rows.hidden.new_empty(rows.hidden.shape, dtype=hidden_dtype)
    row_chunk, vocab_chunk = chunk
    for block in spans(rows.num_rows, row_chunk):
        total: Tensor | None = None
        for span in rows.vocabulary(vocab_chunk):
            part = product(chunk_gradient(block, span), span.weight)
            total = part if total is None else total.add_(part)
        assert total is not None
        result[block] = total
    return result


def _through_learning_head(
    rows: HeadRows,
    chunk: tuple[int, int],
    chunk_gradient: ChunkGradient,
    needs: tuple[bool, bool, bool],
    hidden_dtype: torch.dtype,
) -> HeadGradients:
    needs_hidden, needs_weight, needs_bias = needs
    row_chunk, vocab_chunk = chunk
    if needs_weight:
        vocab_chunk = columns_of_weight_part(rows.hidden.shape[1], vocab_chunk)
    hidden = rows.hidden.new_zeros(rows.hidden.shape, dtype=rows.dtype) if needs_hidden else None
    weight = torch.zeros_like(rows.weight) if needs_weight else None
    bias = torch.zeros_like(rows.bias) if needs_bias and rows.bias is not None else None
    for span in rows.vocabulary(vocab_chunk):
        weight_part: Tensor | None = None
        bias_part: Tensor | None = None
        for block in spans(rows.num_rows, row_chunk):
            dlogits = chunk_gradient(block, span)
            if hidden is not None:
                hidden[block] += product(dlogits, span.weight)
            if weight is not None:
                part = product(dlogits.T, rows.hidden[block])
                weight_part = part if weight_part is None else weight_part.add_(part)
            if bias is not None:
                column_sums = dlogits.sum(0, dtype=rows.dtype)
                bias_part = column_sums if bias_part is None else bias_part.add_(column_sums)
        if weight is not None and weight_part is not None:
            weight[span.columns] = weight_part.to(weight.dtype)
        if bias is not None and bias_part is not None:
            bias[span.columns] = bias_part.to(bias.dtype)
    return HeadGradients(None if hidden is None else hidden.to(hidden_dtype), weight, bias)
