"""The k largest logits of every row, from bounded chunks of the head's product.

There is no kernel that keeps these logits on the chip: the largest of a row are known only after the whole vocabulary,
so it would have to multiply twice, which costs more than one float32 chunk written and read.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.chunked import chunk_logits
from sgsd_kernels.head import product, spans
from sgsd_kernels.head_passes import HeadRows, HeadSpan

ROW_CHUNK = 1024
VOCAB_CHUNK = 8192
"""A chunk is 32 MiB of float32 logits; ranked in torch, with an int64 key each and as much again in the selection."""

_LOWEST_RANK = 2**32 - 1


class TopK(NamedTuple):
    """Ranked by the float32 logit; ties go to the lowest id."""

    ids: Tensor
    """[R, k] int64, in falling order."""
    logits: Tensor
    """[R, k] final logits; -inf in slots without a token (more slots than tokens, or tokens of logit -inf)."""
    target_logit: Tensor
    """[R] the target's final logit; -inf where it is not in the vocabulary."""


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


class Ranking(Protocol):
    """The best columns of each row so far."""

    def absorb(self, block: slice, rows: HeadRows, span: HeadSpan) -> None:
        """Merge the columns of ``span`` into the rows of ``block``, which are ``rows``."""
        ...

    def finish(self) -> TopK: ...


def _ranking(rows: HeadRows, top_k: int, implementation: str) -> Ranking:
    if implementation in ("triton", "cublas"):
        return _KernelRanking(rows, top_k)
    return _TorchRanking(rows, top_k)


class _TorchRanking:
    def __init__(self, rows: HeadRows, top_k: int) -> None:
        shape, device = (rows.num_rows, top_k), rows.hidden.device
        self.keys = torch.full(shape, torch.iinfo(torch.int64).min, device=device)
        self.logits = torch.full(shape, -torch.inf, dtype=rows.dtype, device=device)
        self.target_logit = torch.full((rows.num_rows,), -torch.inf, dtype=rows.dtype, device=device)

    def absorb(self, block: slice, rows: HeadRows, span: HeadSpan) -> None:
        logits = chunk_logits(rows, span)
        width, top_k = logits.shape[1], self.keys.shape[1]
        columns = torch.arange(span.columns.start, span.columns.stop, device=logits.device)
        keys, local = ranking_keys(logits, columns).topk(min(top_k, width), dim=-1)
        keys = torch.cat([self.keys[block], keys], dim=-1)
        values = torch.cat([self.logits[block], logits.gather(-1, local)], dim=-1)
        self.keys[block], order = keys.topk(top_k, dim=-1)
        self.logits[block] = values.gather(-1, order)
        column, is_here = rows.target_columns(span)
        found = logits.gather(-1, column).squeeze(-1)
        self.target_logit[block] = torch.where(is_here, found, self.target_logit[block])

    def finish(self) -> TopK:
        return TopK(_LOWEST_RANK - (self.keys & _LOWEST_RANK), self.logits, self.target_logit)


class _KernelRanking:
    """Keeps keys alone: the float32 logit can be read off a key."""

    def __init__(self, rows: HeadRows, top_k: int) -> None:
        from sgsd_kernels.triton_kernels import top_k as kernels

        self._kernels = kernels
        self._top_k = top_k
        self.keys = kernels.empty_keys(rows.num_rows, top_k, rows.hidden.device)
        self.target_logit = torch.full((rows.num_rows,), -torch.inf, device=rows.hidden.device)

    def absorb(self, block: slice, rows: HeadRows, span: HeadSpan) -> None:
        raw = product(rows.hidden, span.weight.T)
        self._kernels.rank_rows_(self.keys[block], self.target_logit[block], raw, rows, span.columns)

    def finish(self) -> TopK:
        keys = self.keys[:, : self._top_k].sort(dim=-1, descending=True).values
        return TopK(_LOWEST_RANK - (keys & _LOWEST_RANK), logits_of_keys(keys), self.target_logit)


def ranking_keys(logits: Tensor, columns: Tensor) -> Tensor:
    """int64 keys in the order of the float32 logits, and of falling column among equals."""
    bits = (logits.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 equal
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return ordered.to(torch.int64).mul_(2**32).add_(_LOWEST_RANK - columns)


def logits_of_keys(keys: Tensor) -> Tensor:
    """The float32 logits that `ranking_keys` was given; -inf for keys of no column."""
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(torch.int32)
    logits = bits.view(torch.float32)
    return torch.where(logits.isnan(), -torch.inf, logits)


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax over the last dimension of the entries in ``mask``; -inf elsewhere, also where there is none."""
    logits = logits.masked_fill(~mask, -torch.inf)
    logprobs = logits.log_softmax(dim=-1)
    return logprobs.masked_fill(~mask, -torch.inf)
