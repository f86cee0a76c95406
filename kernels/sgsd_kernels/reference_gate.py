"""The gate's definition from log-probabilities, one rollout and one context at a time, differentiated by autograd."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgsd_kernels.gate import GatedPolarityOutput, GateSettings
from sgsd_kernels.reference import accumulation_dtype


def gated_polarity(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    loss_mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    settings: GateSettings,
) -> GatedPolarityOutput:
    """As `sgsd_kernels.gated_polarity`, which checks the tensors; the loss in its textbook form.

    Written for tests: it costs a loop over B * K, and cancels at small log-ratios in float32.
    """
    dtype = accumulation_dtype(student_logprob.dtype)
    student = student_logprob.to(dtype)
    teacher = teacher_logprob.detach().to(dtype)
    num_rollouts, num_contexts = context_weight.shape
    measured = torch.zeros(6, num_rollouts, num_contexts, dtype=dtype, device=student.device)
    losses = []
    for row in range(num_rollouts):
        counts = loss_mask[row].bool()
        loss = student[row].where(counts, 0.0).sum() * 0.0  # a graph even without a context
        for column in range(num_contexts):
            weight = context_weight[row, column].to(dtype)
            if weight == 0:
                continue
            log_ratio = teacher[row, column][counts] - student[row][counts]
            row_loss, measured[:, row, column] = _one_teacher(log_ratio, outcome[row], settings)
            loss = loss + weight * measured[3, row, column] * row_loss
        losses.append(loss)
    rollout_loss = torch.stack(losses) if losses else student.new_zeros(0) * student.sum()
    (coefficient,) = (
        torch.autograd.grad(rollout_loss.sum(), student_logprob, retain_graph=True)
        if rollout_loss.requires_grad
        else (torch.zeros_like(student_logprob),)
    )
    return GatedPolarityOutput(
        rollout_loss=rollout_loss,
        token_coefficient=coefficient.to(dtype),
        stance_score=measured[0],
        raw_stance_score=measured[1],
        stance=measured[2],
        polarity=measured[3],
        gated_loss=measured[4],
        clipped_token_frac=measured[5],
    )


def _one_teacher(log_ratio: Tensor, outcome: Tensor, settings: GateSettings) -> tuple[Tensor, Tensor]:
    """The masked token mean of the gated loss of one (rollout, teacher), and the six measurements as one vector."""
    num_tokens = max(1, log_ratio.numel())
    fixed = log_ratio.detach()
    clipped = fixed.clamp(-settings.log_ratio_clip, settings.log_ratio_clip)
    score = clipped.sum() / num_tokens
    stance = score.sign() if score.abs() > settings.stance_threshold else torch.zeros_like(score)
    polarity = torch.ones_like(score) if settings.polarity == "imitate" else outcome.to(score.dtype) * stance
    gated = math.log(2) - torch.log1p(torch.exp(-log_ratio.square() / (2 * settings.gate_temperature)))
    row_loss = gated.sum() / num_tokens
    num_clipped = (fixed.abs() > settings.log_ratio_clip).sum()
    raw_score = fixed.sum() / num_tokens
    measured = [score, raw_score, stance, polarity, row_loss.detach(), num_clipped / num_tokens]
    return row_loss, torch.stack([value.to(score.dtype) for value in measured])
