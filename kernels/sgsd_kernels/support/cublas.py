"""The teacher's top-k by the library's product and a kernel that ranks its rows: ``cublas`` and ``triton``."""

from __future__ import annotations

import torch

from sgsd_kernels.head.passes import HeadRows, HeadSpan
from sgsd_kernels.head.products import product
from sgsd_kernels.support.kernels.top_k import empty_keys, rank_rows_
from sgsd_kernels.support.passes import LOWEST_RANK, TopK, logits_of_keys


class KernelRanking:
    """`sgsd_kernels.support.passes.Ranking`; keeps keys alone: the float32 logit can be read off a key."""

    def __init__(self, rows: HeadRows, top_k: int) -> None:
        self._top_k = top_k
        self.keys = empty_keys(rows.num_rows, top_k, rows.hidden.device)
        self.target_logit = torch.full((rows.num_rows,), -torch.inf, device=rows.hidden.device)

    def absorb(self, block: slice, rows: HeadRows, span: HeadSpan) -> None:
        raw = product(rows.hidden, span.weight.T)
        rank_rows_(self.keys[block], self.target_logit[block], raw, rows, span.columns)

    def finish(self) -> TopK:
        keys = self.keys[:, : self._top_k].sort(dim=-1, descending=True).values
        return TopK(LOWEST_RANK - (keys & LOWEST_RANK), logits_of_keys(keys), self.target_logit)
