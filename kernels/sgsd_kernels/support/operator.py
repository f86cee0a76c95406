"""The public local support: the teacher's top-k tokens plus the sampled one, and the student on them.

Only the teacher's side reads the whole vocabulary, in bounded chunks and without gradient; the student's side is a
product with the few rows of the head that the support names.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.head.options import HeadOptions, check_head, check_targets
from sgsd_kernels.head.passes import HeadRows
from sgsd_kernels.support import reference
from sgsd_kernels.support.chunked import GATHER_LIMIT, GatheredProducts
from sgsd_kernels.support.function import support_logprob_by
from sgsd_kernels.support.passes import SupportProducts, TopK, masked_log_softmax
from sgsd_kernels.support.top_k import ROW_CHUNK, VOCAB_CHUNK, top_k_logits


class TeacherSupport(NamedTuple):
    """The support of M rows in ``S = k + 1`` slots: the top-k in falling order, then the target unless it is in them.

    Rows whose target is ``ignore_index`` have no slot in use.
    """

    ids: Tensor
    """[M, S] int64 token ids; 0 in unused slots."""
    logprob: Tensor
    """[M, S] float32 nats (float64 for float64 inputs), renormalised on the support; -inf in unused slots."""
    target_slot: Tensor
    """[M] int64: the slot of the target; 0 for ignored rows."""
    mask: Tensor
    """[M, S] bool: slots in use."""


@torch.no_grad()
def teacher_support(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    support_top_k: int,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    ignore_index: int = -100,
    row_chunk: int = ROW_CHUNK,
    vocab_chunk: int = VOCAB_CHUNK,
    implementation: Implementation = "auto",
) -> TeacherSupport:
    """The teacher's top ``support_top_k`` tokens plus the target, and its log-probabilities renormalised on them.

    Tokens are ranked by their float32 logit; ties go to the lowest id, whatever the chunks. A token whose logit is
    -inf is not in the support, unless it is the target. Workspace: a chunk of ``row_chunk`` by ``vocab_chunk`` float32
    logits, by default 32 MiB; ``chunked`` adds an int64 ranking key each and as much again inside the selection.

    Args:
        hidden: [M, D]. weight: [V, D]. targets: [M] int64. No gradient flows to any of them.
        support_top_k: k, at least 1; slots beyond the vocabulary stay unused.
        bias, temperature, softcap, vocab_limit, ignore_index: as in `sgsd_kernels.linear_logprob`.
        row_chunk, vocab_chunk: rows and columns of a chunk.
        implementation: see `Implementation`. ``triton`` is ``cublas``: the library's product, and one kernel that ranks
            each row (see `sgsd_kernels.support.top_k`).

    Raises:
        ValueError, TypeError: as `sgsd_kernels.linear_logprob`.
    """
    check_head(hidden, weight, bias)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    check_targets(targets, hidden.shape[0], options.vocab_size(weight), ignore_index)
    if support_top_k < 1:
        raise ValueError(f"support_top_k must be at least 1 to have a support; got {support_top_k}")
    chosen = resolve_implementation(implementation, Workload.of("teacher_support", hidden, weight))
    is_kept = targets != ignore_index
    rows = HeadRows(hidden, targets, weight, bias, options)
    if chosen == "reference":
        best = reference.top_k_logits(rows, support_top_k)
    else:
        best = top_k_logits(rows, support_top_k, implementation=chosen, row_chunk=row_chunk, vocab_chunk=vocab_chunk)
    return _with_target(best, targets, is_kept)


def _with_target(best: TopK, targets: Tensor, is_kept: Tensor) -> TeacherSupport:
    """The top-k with a last slot for a target that is not in it, renormalised."""
    is_used = best.logits > -torch.inf
    is_target = is_used & (best.ids == targets.unsqueeze(-1))
    is_listed = is_target.any(dim=-1, keepdim=True)
    mask = torch.cat([is_used, ~is_listed], dim=-1) & is_kept.unsqueeze(-1)
    logits = torch.cat([best.logits, best.target_logit.unsqueeze(-1)], dim=-1)
    target_slot = torch.cat([is_target, ~is_listed], dim=-1).to(torch.int64).argmax(dim=-1)
    return TeacherSupport(
        ids=torch.cat([best.ids, targets.unsqueeze(-1)], dim=-1).masked_fill(~mask, 0),
        logprob=masked_log_softmax(logits, mask),
        target_slot=target_slot.masked_fill(~is_kept, 0),
        mask=mask,
    )


def support_logprob(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    mask: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    gather_limit: int = GATHER_LIMIT,
    implementation: Implementation = "auto",
) -> Tensor:
    """Log-probabilities of the tokens ``ids`` at each row, renormalised on the entries in ``mask``.

    Each (row, support) pair multiplies its S rows of the head and no other. Pairs without an upstream gradient are
    skipped in backward.

    Args:
        hidden: [N, D]. weight: [V, D]; frozen, it costs no gradient and no buffer for one.
        ids: [N, K, S] int64 token ids. mask: [N, K, S] bool, slots in use (ids elsewhere are not read).
        bias, temperature, softcap, vocab_limit: as in `sgsd_kernels.linear_logprob`.
        gather_limit: entries of the head that ``chunked`` and ``cublas`` gather at a time; ``triton`` gathers none.
        implementation: see `Implementation`. ``cublas`` is ``chunked``: there is no large product to hand over.

    Returns:
        [N, K, S] float32 nats (float64 for float64 inputs), -inf outside ``mask``; differentiable once in hidden,
        weight and bias.

    Raises:
        ValueError: shapes that do not fit, options out of range, an implementation that cannot run here, an id outside
            the vocabulary (checked on the CPU).
        TypeError: a DTensor.
    """
    check_head(hidden, weight, bias)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    if ids.dim() != 3 or ids.shape[0] != hidden.shape[0] or mask.shape != ids.shape:
        raise ValueError(
            f"ids and mask must be [N, K, S] with hidden's N = {hidden.shape[0]}; "
            f"got {list(ids.shape)} and {list(mask.shape)}"
        )
    ids = ids.where(mask, 0)
    vocab_size = options.vocab_size(weight)
    if ids.device.type == "cpu" and ((ids < 0) | (ids >= vocab_size)).any():
        raise ValueError(f"ids must be token ids in [0, {vocab_size}); got {ids.min().item()} to {ids.max().item()}")
    chosen = resolve_implementation(implementation, Workload.of("support_logprob", hidden, weight))
    if chosen == "reference":
        with kernel_scope(hidden.device):
            return reference.support_logprob(hidden, weight, bias, ids, mask, options)
    return support_logprob_by(_products(chosen, gather_limit), hidden, weight, bias, ids, mask, options)


def _products(implementation: str, gather_limit: int) -> SupportProducts:
    if implementation != "triton":
        return GatheredProducts(gather_limit)
    from sgsd_kernels.support.triton import TritonSupportProducts

    return TritonSupportProducts()
