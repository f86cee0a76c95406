"""What a training step reports about its rollouts and scores: plain functions from records to scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sgsd_lightning.types import FinishReason, Rollout, TokenScores, Verdict


def rollout_metrics(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """How the sampled completions came out. Fractions are over rollouts, ``kept_mass`` over tokens."""
    rewards = [verdict.reward for verdict in verdicts]
    num_tokens = [len(rollout.completion_ids) for rollout in rollouts]
    kept_mass = torch.cat([rollout.kept_mass for rollout in rollouts]) if rollouts else torch.ones(0)
    return {
        "rollout/reward_mean": _mean(rewards),
        "rollout/accepted_frac": _mean([verdict.outcome > 0 for verdict in verdicts]),
        "rollout/answer_found_frac": _mean([verdict.answer is not None for verdict in verdicts]),
        "rollout/truncated_frac": _mean([rollout.finish_reason is FinishReason.TRUNCATED for rollout in rollouts]),
        "rollout/dropped_frac": _mean([verdict.is_dropped for verdict in verdicts]),
        "rollout/equal_rewards_frac": float(len(set(rewards)) <= 1),
        "rollout/completion_tokens_mean": _mean(num_tokens),
        "rollout/completion_tokens_max": float(max(num_tokens, default=0)),
        "rollout/kept_mass_mean": float(kept_mass.mean()) if kept_mass.numel() else 1.0,
    }


def score_metrics(scores: TokenScores, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
    """How the scored tokens look: detached scalars on the scores' device.

    ``sampler_gap``: |sampler's logprob - scorer's logprob| over all sampled tokens, nats. Both are the policy's own
    log-probabilities at temperature 1 without filters, so anything beyond rounding is a misalignment.
    """
    mask = scores.completion_mask
    gap = (scores.student_logprob.detach() - _padded_sampler_logprobs(scores, rollouts)).abs()
    metrics = {
        "objective/kept_token_frac": scores.loss_mask.sum() / mask.sum().clamp(min=1),
        "rollout/without_kept_token_frac": _masked_mean(~scores.loss_mask.any(dim=-1), None),
        "rollout/without_teacher_frac": _masked_mean(~(scores.context_weight > 0).any(dim=-1), None),
        "rollout/sampler_gap_mean": _masked_mean(gap, mask),
        "rollout/sampler_gap_max": torch.where(mask, gap, 0.0).amax() if gap.numel() else gap.sum(),
        "rollout/student_logprob_mean": _masked_mean(scores.student_logprob.detach(), mask),
    }
    if scores.student_entropy is not None:
        metrics["rollout/student_entropy"] = _masked_mean(scores.student_entropy, scores.loss_mask)
    if scores.teacher_entropy is not None and scores.teacher_entropy.numel():
        where = scores.loss_mask[:, None, :] & (scores.context_weight > 0)[:, :, None]
        metrics["objective/teacher_entropy"] = _masked_mean(scores.teacher_entropy, where)
    return metrics


def average(window: Sequence[Mapping[str, float | Tensor]]) -> dict[str, Tensor]:
    """The mean of each metric over the micro-batches of one optimizer step; all have the same keys."""
    keys = dict.fromkeys(key for metrics in window for key in metrics)
    return {key: _stack([metrics[key] for metrics in window if key in metrics]).mean() for key in keys}


def _stack(values: Sequence[float | Tensor]) -> Tensor:
    return torch.stack([torch.as_tensor(value, dtype=torch.float32).detach().cpu() for value in values])


def _padded_sampler_logprobs(scores: TokenScores, rollouts: Sequence[Rollout]) -> Tensor:
    padded = torch.zeros(scores.student_logprob.shape)
    for row, rollout in enumerate(rollouts):
        padded[row, : len(rollout.completion_ids)] = rollout.logprobs
    return padded.to(scores.student_logprob.device)


def _mean(values: Sequence[float]) -> float:
    return float(sum(values)) / max(1, len(values))


def _masked_mean(values: Tensor, where: Tensor | None) -> Tensor:
    """The mean where the mask holds, 0 where it holds nowhere."""
    if where is None:
        return values.float().sum() / max(1, values.numel())
    return torch.where(where, values.float(), 0.0).sum() / where.sum().clamp(min=1)
