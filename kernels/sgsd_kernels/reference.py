"""The definitions, slow and obvious: what every other path of this package is tested against.

Everything here materialises whole [tokens, vocab] tensors and lets autograd differentiate. Inputs below float32 are
computed in float32; float64 stays float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class LogprobOutput(NamedTuple):
    """What the head says of each row's target; natural logarithms, float32 (float64 for float64 inputs).

    Rows whose target is ``ignore_index`` are 0 in every field.
    """

    logprob: Tensor
    """[N]: log-probability of the target."""
    lse: Tensor
    """[N]: log-sum-exp of the final logits (after softcap and temperature)."""
    entropy: Tensor | None
    """[N]: entropy of the distribution, None unless asked for; never carries a gradient."""


def accumulation_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """float64 where one of ``dtypes`` is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def head_logits(
    hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
) -> Tensor:
    """The logits [N, V] of ``hidden`` [N, D] under the head ``weight`` [V, D].

    In this order: product, bias, ``softcap * tanh(logits / softcap)``, division by ``temperature``. Columns from
    ``vocab_limit`` on do not exist.
    """
    dtype = accumulation_dtype(hidden.dtype, weight.dtype)
    logits = hidden.to(dtype) @ weight[:vocab_limit].to(dtype).T
    if bias is not None:
        logits = logits + bias[:vocab_limit].to(dtype)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / temperature


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    entropy: bool = False,
    ignore_index: int = -100,
) -> LogprobOutput:
    """Log-probability of ``targets`` [N] under the head ``weight`` [V, D] at ``hidden`` [N, D].

    ``logprob`` and ``lse`` are differentiable in hidden, weight and bias; ``entropy`` is detached.
    """
    logits = head_logits(hidden, weight, bias=bias, temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    is_kept = targets != ignore_index
    lse = torch.logsumexp(logits, dim=-1)
    target_logit = logits.gather(-1, targets.where(is_kept, 0).unsqueeze(-1)).squeeze(-1)
    return LogprobOutput(
        logprob=torch.where(is_kept, target_logit - lse, 0.0),
        lse=torch.where(is_kept, lse, 0.0),
        entropy=torch.where(is_kept, _entropy(logits.detach()), 0.0) if entropy else None,
    )


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


def _entropy(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(-1)


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
        "student_entropy_sum": (_entropy(student) * is_sampled).sum(),
        "teacher_entropy_sum": (_entropy(teacher) * is_sampled).sum(),
        "num_entropy_tokens": is_sampled.sum(),
        "kept_token_frac": loss_mask.sum() / (completion_ids != 0).sum().clamp(min=1),
    }
