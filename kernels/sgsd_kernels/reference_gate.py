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
    arguments = (teacher_logprob.detach().to(dtype), loss_mask.bool(), context_weight.detach().to(dtype), outcome)
    with torch.enable_grad():  # the coefficients are part of the output whether or not anything learns
        leaf = student_logprob.detach().to(dtype).requires_grad_()
        (coefficient,) = torch.autograd.grad(_rollouts(leaf, *arguments, settings)[0].sum(), leaf)
    rollout_loss, measured = _rollouts(student_logprob.to(dtype), *arguments, settings)
    return GatedPolarityOutput(
        rollout_loss=rollout_loss,
        token_coefficient=coefficient,
        stance_score=measured[0],
        raw_stance_score=measured[1],
        stance=measured[2],
        polarity=measured[3],
        gated_loss=measured[4],
        clipped_token_frac=measured[5],
    )


def _rollouts(
    student: Tensor,
    teacher: Tensor,
    loss_mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    settings: GateSettings,
) -> tuple[Tensor, Tensor]:
    """The loss [B] and the six measurements [6, B, K]."""
    measured = student.new_zeros(6, *context_weight.shape)
    losses = []
    for row, counts in enumerate(loss_mask):
        loss = student[row, :0].sum()  # a graph even without a context
        for column, weight in enumerate(context_weight[row]):
            if weight == 0:
                continue
            log_ratio = teacher[row, column][counts] - student[row][counts]
            row_loss, measured[:, row, column] = _one_teacher(log_ratio, outcome[row], settings)
            loss = loss + weight * measured[3, row, column] * row_loss
        losses.append(loss)
    return (torch.stack(losses) if losses else student.sum(-1)), measured


def _one_teacher(log_ratio: Tensor, outcome: Tensor, settings: GateSettings) -> tuple[Tensor, Tensor]:
    """The masked token mean of the gated loss of one (rollout, teacher), and the six measurements as one vector."""
    num_tokens = max(1, log_ratio.numel())
    fixed = log_ratio.detach()
    clipped = fixed.clamp(-settings.log_ratio_clip, settings.log_ratio_clip)
    score = clipped.sum() / num_tokens
    stance = score.sign() if score.abs() > settings.stance_threshold else torch.zeros_like(score)
    polarity = torch.ones_like(score) if settings.polarity == "imitate" else outcome.to(score.dtype) * stance
    is_infinite = fixed.isinf()  # there l is log 2 and flat, where autograd would multiply 0 by infinity
    exponent = log_ratio.masked_fill(is_infinite, 0.0).square() / (-2 * settings.gate_temperature)
    gated = math.log(2) - torch.log1p(torch.exp(exponent)).masked_fill(is_infinite, 0.0)
    row_loss = gated.sum() / num_tokens
    num_clipped = (fixed.abs() > settings.log_ratio_clip).sum()
    raw_score = fixed.sum() / num_tokens
    measured = [score, raw_score, stance, polarity, row_loss.detach(), num_clipped / num_tokens]
    return row_loss, torch.stack([value.to(score.dtype) for value in measured])
