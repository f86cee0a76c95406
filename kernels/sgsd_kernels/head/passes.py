"""Rows of hidden states against a head, and what an implementation must be able to do with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.products import accumulation_dtype, spans, working_copy


@dataclass(frozen=True, slots=True)
class HeadSpan:
    """One chunk of the vocabulary."""

    columns: slice
    weight: Tensor
    """[columns, D], as `sgsd_kernels.head.products.product` wants it."""
    bias: Tensor | None
    """[columns] in the accumulation dtype."""


@dataclass(frozen=True, slots=True)
class HeadRows:
    """R rows that are to be multiplied by the head."""

    hidden: Tensor
    """[R, D], in the dtype that it came in."""
    targets: Tensor
    """[R] int64."""
    weight: Tensor
    """[V, D]."""
    bias: Tensor | None
    """[V]."""
    options: HeadOptions

    def __post_init__(self) -> None:
        # kernels step through vectors one entry at a time
        object.__setattr__(self, "targets", self.targets.contiguous())
        object.__setattr__(self, "bias", None if self.bias is None else self.bias.contiguous())

    @classmethod
    def select(
        cls,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        options: HeadOptions,
        rows: Tensor,
    ) -> HeadRows:
        """The chosen ``rows`` (indices) of ``hidden`` and ``targets``."""
        is_all = rows.numel() == hidden.shape[0]
        return cls(hidden if is_all else hidden[rows], targets if is_all else targets[rows], weight, bias, options)

    @property
    def num_rows(self) -> int:
        return self.targets.numel()

    @property
    def dtype(self) -> torch.dtype:
        """What logits are accumulated in."""
        return accumulation_dtype(self.hidden.dtype, self.weight.dtype)

    @property
    def vocab_size(self) -> int:
        return self.options.vocab_size(self.weight)

    def block(self, rows: slice) -> HeadRows:
        """Consecutive rows of these."""
        return HeadRows(self.hidden[rows], self.targets[rows], self.weight, self.bias, self.options)

    def vocabulary(self, vocab_chunk: int) -> Iterator[HeadSpan]:
        """The vocabulary's chunks; none when there is no row."""
        if self.num_rows == 0:
            return
        for columns in spans(self.vocab_size, vocab_chunk):
            bias = None if self.bias is None else self.bias[columns].to(self.dtype)
            yield HeadSpan(columns, working_copy(self.weight[columns]), bias)

    def target_columns(self, span: HeadSpan) -> tuple[Tensor, Tensor]:
        """Column of each row's target in this chunk [R, 1] (any column when it is not here), and whether it is."""
        column = self.targets - span.columns.start
        width = span.columns.stop - span.columns.start
        return column.clamp(0, width - 1).unsqueeze(-1), (column >= 0) & (column < width)


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """What one pass over a vocabulary, or over a shard of it, says of each row. All [R], accumulation dtype.

    Everything is relative to the row's maximum, so that logits far from 0 cost no digits.
    """

    row_max: Tensor
    """max_v z_v of the final logits; -inf where every column is removed."""
    total: Tensor
    """sum_v exp(z_v - max)."""
    centred: Tensor | None
    """sum_v (z_v - max) exp(z_v - max); None unless entropy was asked for."""
    target_logit: Tensor
    """z of the target; -inf where the target is not in this vocabulary."""

    @classmethod
    def empty(cls, num_rows: int, entropy: bool, dtype: torch.dtype, device: torch.device) -> RowStatistics:
        """The statistics of a vocabulary without a column."""
        lowest = torch.full((num_rows,), -torch.inf, dtype=dtype, device=device)
        zeros = torch.zeros_like(lowest)
        return cls(lowest, zeros, zeros.clone() if entropy else None, lowest.clone())

    @classmethod
    def joined(cls, parts: Sequence[RowStatistics]) -> RowStatistics:
        """The statistics of all rows of ``parts``, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        centred = [part.centred for part in parts if part.centred is not None]
        return cls(
            torch.cat([part.row_max for part in parts]),
            torch.cat([part.total for part in parts]),
            torch.cat(centred) if centred else None,
            torch.cat([part.target_logit for part in parts]),
        )

    def block(self, rows: slice) -> RowStatistics:
        """Views of consecutive rows."""
        centred = None if self.centred is None else self.centred[rows]
        return RowStatistics(self.row_max[rows], self.total[rows], centred, self.target_logit[rows])

    @property
    def log_normalizer(self) -> Tensor:
        """lse relative to the row's maximum."""
        return self.total.log()

    @property
    def lse(self) -> Tensor:
        return self.row_max + self.log_normalizer

    @property
    def logprob(self) -> Tensor:
        return self.target_logit - self.row_max - self.log_normalizer

    @property
    def entropy(self) -> Tensor | None:
        return None if self.centred is None else self.log_normalizer - self.centred / self.total


@dataclass(frozen=True, slots=True)
class Normalizer:
    """lse per row in two parts whose sum it is; [R]."""

    row_max: Tensor
    log_normalizer: Tensor

    def block(self, rows: slice) -> Normalizer:
        return Normalizer(self.row_max[rows], self.log_normalizer[rows])


@dataclass(frozen=True, slots=True)
class Upstream:
    """Gradients per row of logprob (that is: of the target's logit minus lse) and of lse; [R]."""

    target: Tensor
    lse: Tensor

    def block(self, rows: slice) -> Upstream:
        return Upstream(self.target[rows], self.lse[rows])


class HeadPasses(Protocol):
    """The two passes over the vocabulary that an implementation of the head consists of."""

    def scan(self, rows: HeadRows, *, entropy: bool) -> RowStatistics:
        """Forward: statistics of every row."""
        ...

    def gradient_chunk(self, rows: HeadRows) -> tuple[int, int]:
        """How many rows and columns `dlogits` is to be asked for at a time."""
        ...

    def dlogits(self, rows: HeadRows, span: HeadSpan, normalizer: Normalizer, upstream: Upstream) -> Tensor:
        """Backward: gradient [R, columns] of the head's product, recomputed.

        That is ``target * onehot + (lse - target) * p`` taken back through temperature and softcap, in the dtype in
        which it is to be multiplied.
        """
        ...
