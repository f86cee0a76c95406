"""The gate on a local support: it reads the divergence there, the stance the local log-ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.gate.closed_form import CountedTokens, gated_loss, gated_loss_slope, judge
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings, PolarityRule
from sgsd_kernels.head.products import accumulation_dtype


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
