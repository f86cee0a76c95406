"""The head over one shard of the vocabulary: the parts from which tensor parallelism can be built.

With the vocabulary split over P processes, process i holds columns [first_i, first_i + V_i) and:

1. calls `shard_statistics` on its shard, which costs one product and keeps four numbers per row;
2. makes the whole vocabulary's statistics: `merge_statistics` of gathered parts, or two all-reductions: the maximum
   of ``row_max`` (and of ``target_logit``), then the sums of ``total`` and ``centred`` shifted to it;
3. reads ``logprob``, ``lse`` and ``entropy`` off the result, on every process alike;
4. backward, calls `shard_gradients`: gradients of its shard's weight and bias are complete, those of hidden are its
   summand of an all-reduced sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.dispatch import Implementation, Workload, passes_for, resolve_implementation
from sgsd_kernels.head import HeadOptions, check_head
from sgsd_kernels.head_gradients import HeadGradients
from sgsd_kernels.head_passes import HeadPasses, HeadRows, Normalizer, RowStatistics, Upstream
from sgsd_kernels.logprob_function import row_gradients


@torch.no_grad()
def shard_statistics(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    first_column: int,
    bias: Tensor | None = None,
    options: HeadOptions | None = None,
    entropy: bool = False,
    implementation: Implementation = "auto",
) -> RowStatistics:
    """What one shard of the vocabulary says of every row; no gradient.

    Args:
        hidden: [N, D]. weight: [V_i, D], the shard. bias: [V_i].
        targets: [N] int64 ids in the whole vocabulary; those outside the shard leave ``target_logit`` at -inf.
        first_column: id of the shard's first column.
        options: of the head; its ``vocab_limit`` counts columns of this shard.
        entropy: also sum what the entropy needs.
        implementation: any but ``reference``.

    Raises:
        ValueError, TypeError: as `sgsd_kernels.linear_logprob`.
    """
    passes, rows = _shard(hidden, weight, targets, first_column, bias, options, implementation)
    with kernel_scope(hidden.device):
        return passes.scan(rows, entropy=entropy)


def merge_statistics(parts: Sequence[RowStatistics]) -> RowStatistics:
    """The statistics of a vocabulary from those of its shards, in the order given.

    Raises:
        ValueError: no part, or some with and some without ``centred``.
    """
    centred = [part.centred for part in parts if part.centred is not None]
    if not parts or len(centred) not in (0, len(parts)):
        raise ValueError(f"merge_statistics needs parts of one kind; got {len(parts)}, {len(centred)} with entropy")
    row_max = torch.stack([part.row_max for part in parts]).amax(0)
    anchor = row_max.masked_fill(row_max == -torch.inf, 0.0)
    total = torch.zeros_like(row_max)
    moved = torch.zeros_like(row_max)
    for part in parts:
        shift = part.row_max - anchor
        scale = shift.exp()
        total = total + scale * part.total
        if part.centred is not None:
            shift = shift.clamp(min=torch.finfo(shift.dtype).min)  # 0 * -inf is NaN
            moved = moved + scale * (part.centred + shift * part.total)
    target_logit = torch.stack([part.target_logit for part in parts]).amax(0)
    return RowStatistics(row_max, total, moved if centred else None, target_logit)


@torch.no_grad()
def shard_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    statistics: RowStatistics,
    grad_logprob: Tensor,
    grad_lse: Tensor,
    *,
    first_column: int,
    bias: Tensor | None = None,
    options: HeadOptions | None = None,
    needs: tuple[bool, bool, bool] = (True, False, False),
    implementation: Implementation = "auto",
) -> HeadGradients:
    """Gradients of ``(grad_logprob * logprob + grad_lse * lse).sum()`` through one shard.

    Args:
        statistics: of the whole vocabulary.
        grad_logprob, grad_lse: [N].
        needs: whether hidden, weight and bias learn.
        Others: as in `shard_statistics`.

    Returns:
        Gradients of hidden (this shard's summand), weight and bias (complete).
    """
    passes, rows = _shard(hidden, weight, targets, first_column, bias, options, implementation)
    upstream = Upstream(grad_logprob.to(statistics.total.dtype), grad_lse.to(statistics.total.dtype))
    normalizer = Normalizer(statistics.row_max.contiguous(), statistics.log_normalizer.contiguous())
    with kernel_scope(hidden.device):
        return row_gradients(passes, rows, normalizer, upstream, needs=needs, hidden_dtype=hidden.dtype)


def _shard(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    first_column: int,
    bias: Tensor | None,
    options: HeadOptions | None,
    implementation: Implementation,
) -> tuple[HeadPasses, HeadRows]:
    check_head(hidden, weight, bias)
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets must be [N] with hidden's N = {hidden.shape[0]}; got {list(targets.shape)}")
    chosen = resolve_implementation(implementation, Workload.of("linear_logprob", hidden, weight))
    local = targets - first_column
    rows = HeadRows(hidden, local, weight, bias, options or HeadOptions())
    return passes_for(chosen, hidden.device), rows
