"""The k largest logits of every row, from bounded chunks of the head's product.

There is no kernel that keeps these logits on the chip: the largest of a row are known only after the whole vocabulary,
so it would have to multiply twice, which costs more than one float32 chunk written and read.
"""

from __future__ import annotations

import torch

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.head.passes import HeadRows
from sgsd_kernels.head.products import spans
from sgsd_kernels.support.chunked import TorchRanking
from sgsd_kernels.support.passes import Ranking, TopK

ROW_CHUNK = 1024
VOCAB_CHUNK = 8192
"""A chunk is 32 MiB of float32 logits; ranked in torch, with an int64 key each and as much again in the selection."""


@torch.no_grad()
def top_k_logits(
    rows: HeadRows,
    top_k: int,
    *,
    implementation: str,
    row_chunk: int = ROW_CHUNK,
    vocab_chunk: int = VOCAB_CHUNK,
) -> TopK:
    """The ``top_k`` largest final logits of each row and the target's.

    Args:
        rows: R rows against their head.
        top_k: At least 1.
        implementation: ``triton`` and ``cublas`` rank by a kernel that reads each logit once, any other in torch.
        row_chunk, vocab_chunk: rows and columns of a chunk of logits.
    """
    ranking = _ranking(rows, top_k, implementation)
    with kernel_scope(rows.hidden.device):
        for span in rows.vocabulary(vocab_chunk):
            for block in spans(rows.num_rows, row_chunk):
                ranking.absorb(block, rows.block(block), span)
        return ranking.finish()


def _ranking(rows: HeadRows, top_k: int, implementation: str) -> Ranking:
    if implementation in ("triton", "cublas"):
        from sgsd_kernels.support.cublas import KernelRanking

        return KernelRanking(rows, top_k)
    return TorchRanking(rows, top_k)
