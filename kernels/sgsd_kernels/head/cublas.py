"""The head by the library's product into a bounded float32 chunk, and one Triton kernel over its rows: ``cublas``.

Each logit is written and read once, in float32. Where the library's product outruns a fused kernel by more than that
traffic, this is the faster way.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sgsd_kernels.head.kernels.rows import dlogits_rows, scan_rows_
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer, RowStatistics, Upstream
from sgsd_kernels.head.products import product, spans

ROW_CHUNK = 4096
VOCAB_CHUNK = 8192
"""A chunk is 128 MiB of float32 logits; backward holds its gradient besides, 64 MiB in bfloat16."""


@dataclass(frozen=True, slots=True)
class CublasPasses:
    """`sgsd_kernels.head.passes.HeadPasses`; the vocabulary is always cut in the same places."""

    row_chunk: int = ROW_CHUNK
    vocab_chunk: int = VOCAB_CHUNK

    def scan(self, rows: HeadRows, *, entropy: bool) -> RowStatistics:
        statistics = RowStatistics.empty(rows.num_rows, entropy, rows.dtype, rows.hidden.device)
        for span in rows.vocabulary(self.vocab_chunk):
            for block in spans(rows.num_rows, self.row_chunk):
                part = rows.block(block)
                scan_rows_(statistics.block(block), product(part.hidden, span.weight.T), part, span.columns)
        return statistics

    def gradient_chunk(self, rows: HeadRows) -> tuple[int, int]:
        return self.row_chunk, self.vocab_chunk

    def dlogits(self, rows: HeadRows, span: HeadSpan, normalizer: Normalizer, upstream: Upstream) -> Tensor:
        return dlogits_rows(product(rows.hidden, span.weight.T), rows, span.columns, normalizer, upstream)
