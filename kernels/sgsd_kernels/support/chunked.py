"""The local support in plain torch: ranks chunks of logits, and gathers the head rows that each support names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.head.chunked import chunk_logits
from sgsd_kernels.head.passes import HeadRows, HeadSpan
from sgsd_kernels.head.products import accumulation_dtype, spans
from sgsd_kernels.support.passes import LOWEST_RANK, SupportPairs, TopK, ranking_keys

GATHER_LIMIT = 64 * 2**20 // 4
"""Head entries gathered at a time: 64 MiB of float32."""


class TorchRanking:
    """`sgsd_kernels.support.passes.Ranking` by ``topk`` over int64 keys."""

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
        return TopK(LOWEST_RANK - (self.keys & LOWEST_RANK), self.logits, self.target_logit)


@dataclass(frozen=True, slots=True)
class GatheredProducts:
    """`sgsd_kernels.support.passes.SupportProducts`.

    Pairs go through in groups of at most ``gather_limit`` gathered head entries (a single pair may exceed it).
    """

    gather_limit: int = GATHER_LIMIT

    def logits(self, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        result = torch.empty(
            pairs.ids.shape, dtype=accumulation_dtype(hidden.dtype, weight.dtype), device=hidden.device
        )
        for group, part in self._groups(hidden, pairs):
            head_rows = weight[part.ids].to(result.dtype)
            result[group] = torch.einsum("pd,psd->ps", hidden[part.rows].to(result.dtype), head_rows)
        return result

    def hidden_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        result = torch.zeros(hidden.shape, dtype=gradient.dtype, device=hidden.device)
        for group, part in self._groups(hidden, pairs):
            head_rows = weight[part.ids].to(gradient.dtype)
            summands = torch.einsum("ps,psd->pd", gradient[group], head_rows)
            result.index_put_((part.rows,), summands, accumulate=True)
        return result

    def weight_gradient(self, gradient: Tensor, hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
        result = torch.zeros(weight.shape, dtype=gradient.dtype, device=weight.device)
        for group, part in self._groups(hidden, pairs):
            outer = gradient[group].unsqueeze(-1) * hidden[part.rows].to(gradient.dtype).unsqueeze(1)
            result.index_put_((part.ids,), outer, accumulate=True)
        return result

    def _groups(self, hidden: Tensor, pairs: SupportPairs) -> Iterator[tuple[slice, SupportPairs]]:
        size = max(1, self.gather_limit // max(1, pairs.ids.shape[1] * hidden.shape[1]))
        for group in spans(len(pairs), size):
            yield group, SupportPairs(pairs.rows[group], pairs.ids[group])
