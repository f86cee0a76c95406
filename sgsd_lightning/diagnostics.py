"""What a training step reports about its rollouts and scores: plain functions from records to measurements."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgsd_lightning.measurements import Largest, Mean, Measurement, mean_of, mean_where
from sgsd_lightning.types import FinishReason, Rollout, TokenScores, Verdict


def rollout_metrics(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> dict[str, Measurement]:
    """How the sampled completions came out.

    Fractions are over rollouts, ``equal_rewards_frac`` over problems, ``kept_mass`` over tokens.
    """
    num_tokens = [len(rollout.completion_ids) for rollout in rollouts]
    kept_mass = torch.cat([rollout.kept_mass for rollout in rollouts]) if rollouts else torch.ones(0)
    return {
        "rollout/reward_mean": mean_of([verdict.reward for verdict in verdicts]),
        "rollout/accepted_frac": mean_of([verdict.outcome > 0 for verdict in verdicts]),
        "rollout/answer_found_frac": mean_of([verdict.answer is not None for verdict in verdicts]),
        "rollout/truncated_frac": mean_of([rollout.finish_reason is FinishReason.TRUNCATED for rollout in rollouts]),
        "rollout/dropped_frac": mean_of([verdict.is_dropped for verdict in verdicts]),
        "rollout/equal_rewards_frac": mean_of(_has_equal_rewards(rollouts, verdicts)),
        "rollout/completion_tokens_mean": mean_of(num_tokens),
        "rollout/completion_tokens_max": Largest(float(max(num_tokens, default=0))),
        "rollout/kept_mass_mean": Mean(float(kept_mass.sum()), float(kept_mass.numel())),
    }


def _has_equal_rewards(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> list[bool]:
    """Per problem: whether all of its rollouts were rewarded alike."""
    rewards: dict[str, set[float]] = {}
    for rollout, verdict in zip(rollouts, verdicts, strict=True):
        rewards.setdefault(rollout.problem.problem_id, set()).add(verdict.reward)
    return [len(values) == 1 for values in rewards.values()]


def score_metrics(scores: TokenScores, rollouts: Sequence[Rollout]) -> dict[str, Measurement]:
    """How the scored tokens look.

    ``sampler_gap``: |sampler's logprob - scorer's logprob| over all sampled tokens, nats. Both are the policy's own
    log-probabilities at temperature 1 without filters, so anything beyond rounding is a misalignment.
    """
    mask = scores.completion_mask
    logprob = scores.student_logprob.detach()
    gap = (logprob - _padded_sampler_logprobs(scores, rollouts)).abs()
    everywhere = torch.ones(len(rollouts), dtype=torch.bool, device=mask.device)
    metrics: dict[str, Measurement] = {
        "objective/kept_token_frac": Mean(scores.loss_mask.sum(), mask.sum()),
        "rollout/without_kept_token_frac": mean_where(~scores.loss_mask.any(dim=-1), everywhere),
        "rollout/without_teacher_frac": mean_where(~(scores.context_weight > 0).any(dim=-1), everywhere),
        "rollout/sampler_gap_mean": mean_where(gap, mask),
        "rollout/sampler_gap_max": Largest(torch.where(mask, gap, 0.0).amax() if gap.numel() else 0.0),
        "rollout/student_logprob_mean": mean_where(logprob, mask),
    }
    if scores.student_entropy is not None:
        metrics["rollout/student_entropy"] = mean_where(scores.student_entropy, scores.loss_mask)
    if scores.teacher_entropy is not None and scores.teacher_entropy.numel():
        where = scores.loss_mask[:, None, :] & (scores.context_weight > 0)[:, :, None]
        metrics["objective/teacher_entropy"] = mean_where(scores.teacher_entropy, where)
    return metrics


def _padded_sampler_logprobs(scores: TokenScores, rollouts: Sequence[Rollout]) -> Tensor:
    padded = torch.zeros(scores.student_logprob.shape)
    for row, rollout in enumerate(rollouts):
        padded[row, : len(rollout.completion_ids)] = rollout.logprobs
    return padded.to(scores.student_logprob.device)
