"""The local support: each token's distribution restricted to the teacher's top-k tokens plus the sampled one.

Only the teacher's side reads the whole vocabulary, in bounded chunks and without gradient; the student's side is a
product with the few rows of the head that the support names (`support_logprob`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.gate import (
    CountedTokens,
    GatedPolarityOutput,
    GateSettings,
    PolarityRule,
    gated_loss,
    gated_loss_slope,
    judge,
)
from sgsd_kernels.head import HeadOptions, check_head, check_targets
from sgsd_kernels.head_passes import HeadRows
from sgsd_kernels.reference import accumulation_dtype, head_logits
from sgsd_kernels.top_k import ROW_CHUNK, VOCAB_CHUNK, TopK, masked_log_softmax, top_k_logits


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
            each row (see `sgsd_kernels.top_k`).

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
        best = _rank_whole_logits(rows, support_top_k)
    else:
        best = top_k_logits(rows, support_top_k, implementation=chosen, row_chunk=row_chunk, vocab_chunk=vocab_chunk)
    return _with_target(best, targets, is_kept)


def _rank_whole_logits(rows: HeadRows, top_k: int) -> TopK:
    """The definition: a stable sort of every row's whole logits."""
    options = rows.options
    logits = head_logits(
        rows.hidden,
        rows.weight,
        bias=rows.bias,
        temperature=options.temperature,
        softcap=options.softcap,
        vocab_limit=options.vocab_limit,
    )
    width = logits.shape[1]
    order = logits.float().sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    missing = (0, top_k - order.shape[1])
    is_inside = (rows.targets >= 0) & (rows.targets < width)
    found = logits.gather(-1, rows.targets.clamp(0, width - 1).unsqueeze(-1)).squeeze(-1)
    return TopK(
        ids=torch.nn.functional.pad(order, missing),
        logits=torch.nn.functional.pad(logits.gather(-1, order), missing, value=-torch.inf),
        target_logit=torch.where(is_inside, found, -torch.inf),
    )


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


def gated_support(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    target_slot: Tensor,
    loss_mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    *,
    gate_temperature: float = 1.0,
    log_ratio_clip: float = 3.0,
    stance_threshold: float = 0.05,
    polarity: PolarityRule = "validated",
) -> GatedPolarityOutput:
    """SGSD's loss per rollout on a local support: the gate reads the divergence, the stance the local log-ratio.

    With p the teacher's and q the student's distribution on the support of S tokens, D = sum_s p_s (log p_s - log q_s)
    stands in for r in the gated loss, and r = log p_y - log q_y of the sampled token y decides the stance. The gradient
    in ``student_logprob`` takes its entries as free: -w rho m/n l'(D) p_s; their normalisation is `support_logprob`'s.

    Args:
        student_logprob: [B, K, T, S] nats; carries the gradient. Slots where the teacher is -inf do not matter.
        teacher_logprob: [B, K, T, S] nats, -inf outside the support.
        target_slot: [B, K, T] int64, the slot of the sampled token.
        loss_mask, context_weight, outcome, and the settings: as in `gated_polarity`.

    Returns:
        As `gated_polarity`, ``token_coefficient`` being [B, K, T, S], with ``support_divergence``, ``support_size``.
    """
    settings = GateSettings(
        gate_temperature=gate_temperature,
        log_ratio_clip=log_ratio_clip,
        stance_threshold=stance_threshold,
        polarity=polarity,
    )
    if student_logprob.shape != teacher_logprob.shape or student_logprob.shape[:3] != target_slot.shape:
        raise ValueError(
            "student_logprob and teacher_logprob must be [B, K, T, S] and target_slot [B, K, T]; got "
            f"{list(student_logprob.shape)}, {list(teacher_logprob.shape)} and {list(target_slot.shape)}"
        )
    tokens = CountedTokens(loss_mask, context_weight, accumulation_dtype(student_logprob.dtype))
    tokens.check(teacher_logprob, outcome)
    with torch.no_grad():
        student, teacher = student_logprob.to(tokens.dtype), teacher_logprob.to(tokens.dtype)
        slot = torch.where(tokens.mask, target_slot, 0).unsqueeze(-1)
        log_ratio = tokens.clean((teacher.gather(-1, slot) - student.gather(-1, slot)).squeeze(-1))
        counts = tokens.mask.unsqueeze(-1) & (teacher > -torch.inf)  # [B, K, T, S]
        probability = torch.where(counts, teacher, -torch.inf).exp()
        divergence = (probability * torch.where(counts, teacher - student, 0.0)).sum(-1)
        stances = judge(log_ratio, tokens, outcome, settings)
        row_loss = tokens.mean(gated_loss(divergence, gate_temperature))
        slope = tokens.token_weight(stances.polarity) * gated_loss_slope(divergence, gate_temperature)
        coefficient = -slope.unsqueeze(-1) * probability
    return stances.output(
        student_logprob,
        coefficient,
        row_loss,
        tokens,
        support_divergence=tokens.mean(divergence),
        support_size=tokens.mean(counts.sum(-1).to(tokens.dtype)),
    )
