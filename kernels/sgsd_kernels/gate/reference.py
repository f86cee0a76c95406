"""The gate's definitions, differentiated by autograd: from log-probabilities, and the whole objective from logits.

`gated_polarity` goes one rollout and one context at a time. `gated_polarity_loss` is the authors' loss as they compute
it, with whole [tokens, vocab] tensors. Inputs below float32 are computed in float32; float64 stays float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings
from sgsd_kernels.head.products import accumulation_dtype
from sgsd_kernels.head.reference import entropy_of_logits


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceOutput:
    """The loss of a batch and what led to it."""

    loss: Tensor
    """Scalar, differentiable in the student's logits."""
    stance_score: Tensor
    """[B, K]: masked mean of the clipped log-ratio, nats per token."""
    polarity: Tensor
    """[B, K]: +1 helpful, -1 misleading, 0 neutral."""
    metrics: dict[str, Tensor]
    """Scalars; see `gated_polarity_loss`."""


def gated_polarity_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    completion_ids: Tensor,
    loss_mask: Tensor,
    context_weights: Tensor,
    rewards: Tensor,
    *,
    gate_temperature: float,
    log_ratio_clip: float,
    stance_threshold: float,
    support_top_k: int,
) -> ReferenceOutput:
    """SGSD's objective from whole logits, with r = teacher logprob - student logprob of the sampled token::

        s_k = sum_t m_t clip(r_kt, -C, C) / n,   n = max(1, sum_t m_t)
        a_k = sign(s_k) if |s_k| > theta else 0
        rho_k = a_k if reward > 0 else -a_k
        l(x) = log 2 - log(1 + exp(-x^2 / (2 tau)))
        loss = mean over rollouts of  sum_k w_k rho_k sum_t m_t l(x_kt) / n

    where x is r, or with a local support the divergence KL(teacher || student) on it, which then also defines r.

    Args:
        student_logits: [B, C, V], that predict completion token t of rollout b.
        teacher_logits: [B, K, C, V], the same under teacher context k; taken as constants.
        completion_ids: [B, C] sampled tokens; 0 is padding (it matters to the token counts in the metrics only).
        loss_mask: [B, C] bool, tokens that count.
        context_weights: [B, K].
        rewards: [B]; above 0 means accepted.
        gate_temperature: tau. log_ratio_clip: C. stance_threshold: theta.
        support_top_k: -1 for the full vocabulary, k > 0 for the teacher's top-k tokens plus the sampled one.

    Returns:
        loss, stance_score, polarity and metrics. Means over the B*K rows: ``stance_score``, ``stance_score_raw``,
        ``gated_loss``, ``below_threshold_frac``, ``helpful_frac``, ``misleading_frac``, ``neutral_frac``. Over
        tokens that count: ``clipped_token_frac``. Over sampled tokens: ``kept_token_frac``, and
        ``student_entropy_sum``, ``teacher_entropy_sum``, ``num_entropy_tokens``, which count a token once per teacher.
        With a local support, over all B*K*C positions, masked ones included: ``support_divergence``, ``support_size``.
    """
    dtype = accumulation_dtype(student_logits.dtype)
    student = student_logits.to(dtype).log_softmax(-1).unsqueeze(1).expand_as(teacher_logits)
    teacher = teacher_logits.detach().to(dtype).log_softmax(-1)
    targets = completion_ids[:, None, :, None].expand(*teacher.shape[:-1], 1)
    mask = loss_mask.to(dtype).unsqueeze(1)  # [B, 1, C]
    num_tokens = mask.sum(-1).clamp(min=1)  # [B, 1]

    local = _local_support(student, teacher, targets, support_top_k) if support_top_k > 0 else None
    student_local, teacher_local = (student, teacher) if local is None else local
    log_ratio = (teacher_local - student_local).gather(-1, targets).squeeze(-1)  # [B, K, C]
    divergence = None if local is None else _divergence(teacher_local, student_local)
    gate_input = log_ratio if divergence is None else divergence

    clipped = log_ratio.detach().clamp(-log_ratio_clip, log_ratio_clip)
    stance_score = (clipped * mask).sum(-1) / num_tokens
    stance = stance_score.sign() * (stance_score.abs() > stance_threshold)
    polarity = torch.where(rewards > 0, 1.0, -1.0).to(dtype).unsqueeze(1) * stance
    gated = math.log(2) - torch.log1p(torch.exp(-gate_input.square() / (2 * gate_temperature)))
    gated_loss = (gated * mask).sum(-1) / num_tokens  # [B, K]
    loss = (context_weights.to(dtype) * polarity * gated_loss).sum(1).mean()

    metrics = _row_metrics(stance_score, polarity, gated_loss.detach(), stance_threshold)
    metrics["stance_score_raw"] = ((log_ratio.detach() * mask).sum(-1) / num_tokens).mean()
    is_clipped = (log_ratio.detach().abs() > log_ratio_clip) * mask
    metrics["clipped_token_frac"] = is_clipped.sum() / mask.expand_as(log_ratio).sum().clamp(min=1)
    metrics |= _token_metrics(student.detach(), teacher, completion_ids, loss_mask)
    if divergence is not None:
        support_size = (teacher_local > -torch.inf).sum(-1).to(dtype)
        metrics["support_divergence"] = divergence.detach().mean()
        metrics["support_size"] = support_size.mean()
    return ReferenceOutput(loss=loss, stance_score=stance_score, polarity=polarity, metrics=metrics)


def _local_support(student: Tensor, teacher: Tensor, targets: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Both log-distributions [B, K, C, V] restricted to the teacher's top-k plus the target; -inf elsewhere."""
    order = teacher.sort(dim=-1, descending=True, stable=True).indices
    support = torch.zeros_like(teacher, dtype=torch.bool)
    support = support.scatter(-1, order[..., :top_k], True).scatter(-1, targets, True)
    student_local = student.masked_fill(~support, -torch.inf).log_softmax(-1)
    return student_local, teacher.masked_fill(~support, -torch.inf).log_softmax(-1)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) over the last dimension; a token of teacher probability 0 adds 0."""
    outside = teacher == -torch.inf
    difference = teacher.masked_fill(outside, 0.0) - student.masked_fill(outside, 0.0)
    return (teacher.exp() * difference).sum(-1)


def _row_metrics(
    stance_score: Tensor, polarity: Tensor, gated_loss: Tensor, stance_threshold: float
) -> dict[str, Tensor]:
    dtype = stance_score.dtype
    return {
        "stance_score": stance_score.mean(),
        "gated_loss": gated_loss.mean(),
        "below_threshold_frac": (stance_score.abs() <= stance_threshold).to(dtype).mean(),
        "helpful_frac": (polarity > 0).to(dtype).mean(),
        "misleading_frac": (polarity < 0).to(dtype).mean(),
        "neutral_frac": (polarity == 0).to(dtype).mean(),
    }


def _token_metrics(student: Tensor, teacher: Tensor, completion_ids: Tensor, loss_mask: Tensor) -> dict[str, Tensor]:
    """Entropies and counts over sampled tokens (``completion_ids`` other than 0), once per teacher."""
    is_sampled = (completion_ids != 0).to(student.dtype).unsqueeze(1).expand(teacher.shape[:-1])
    return {
        "student_entropy_sum": (entropy_of_logits(student) * is_sampled).sum(),
        "teacher_entropy_sum": (entropy_of_logits(teacher) * is_sampled).sum(),
        "num_entropy_tokens": is_sampled.sum(),
        "kept_token_frac": loss_mask.sum() / (completion_ids != 0).sum().clamp(min=1),
    }
