"""What a training step reports about its rollouts and scores: plain functions from records to measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sgsd_lightning.metrics.measurements import Largest, Mean, Measurement, Total, mean_of, mean_where, weighted
from sgsd_lightning.objectives import ObjectiveResult
from sgsd_lightning.scoring.token_count import TokenCount
from sgsd_lightning.types import FinishReason, JudgedRollout, Rollout, TokenScores


def objective_metrics(result: ObjectiveResult, num_scored: int, num_sampled: int) -> dict[str, Measurement]:
    """The loss and what the objective says of itself; plain scalars are taken as means over the scored rollouts.

    ``loss`` is the mean over the sampled rollouts, in which dropped ones count 0.
    """
    return {
        "objective/loss": Mean(result.loss.detach() * num_scored, float(num_sampled)),
        **{
            name: weighted(value, num_scored) if isinstance(value, Tensor) else value
            for name, value in result.metrics.items()
        },
    }


def token_metrics(
    counts: Mapping[str, TokenCount], sampled_lengths: Sequence[tuple[int, int]]
) -> dict[str, Measurement]:
    """``tokens/...``: what each phase of a step went through, and how much of the scoring was padding.

    Args:
        counts: Of the scorer, for ``teachers`` and ``student``.
        sampled_lengths: Prompt and completion tokens of every rollout.
    """
    return {
        "tokens/rollout": Total(float(sum(completion for _, completion in sampled_lengths))),
        **{f"tokens/{who}": Total(float(count.num_run)) for who, count in counts.items()},
        "tokens/padding_frac": Mean(
            float(sum(count.num_padded for count in counts.values())),
            float(sum(count.num_run for count in counts.values())),
        ),
    }


def rollout_metrics(judged: Sequence[JudgedRollout]) -> dict[str, Measurement]:
    """How the sampled completions came out.

    Fractions are over rollouts, ``equal_rewards_frac`` over problems, ``kept_mass`` over tokens. The length of accepted
    and of rejected completions is 0 where there were none; ``repetition_frac`` is that of `repeated_ngram_frac`.
    """
    rollouts, verdicts = [entry.rollout for entry in judged], [entry.verdict for entry in judged]
    num_tokens = [len(rollout.completion_ids) for rollout in rollouts]
    outcomes = list(zip(num_tokens, (verdict.outcome for verdict in verdicts), strict=True))
    rewards = [verdict.reward for verdict in verdicts if verdict.reward is not None]
    return {
        "rollout/reward_mean": mean_of(rewards),
        "rollout/unjudged_frac": mean_of([verdict.reward is None for verdict in verdicts]),
        "rollout/accepted_frac": mean_of([verdict.outcome > 0 for verdict in verdicts]),
        "rollout/answer_found_frac": mean_of([verdict.answer is not None for verdict in verdicts]),
        "rollout/truncated_frac": mean_of([rollout.finish_reason is FinishReason.TRUNCATED for rollout in rollouts]),
        "rollout/dropped_frac": mean_of([verdict.is_dropped for verdict in verdicts]),
        "rollout/equal_rewards_frac": mean_of(_has_equal_rewards(judged)),
        "rollout/completion_tokens_mean": mean_of(num_tokens),
        "rollout/completion_tokens_accepted_mean": mean_of([num for num, outcome in outcomes if outcome > 0]),
        "rollout/completion_tokens_rejected_mean": mean_of([num for num, outcome in outcomes if outcome < 0]),
        "rollout/completion_tokens_max": Largest(float(max(num_tokens, default=0))),
        "rollout/repetition_frac": mean_of([repeated_ngram_frac(rollout.completion_ids) for rollout in rollouts]),
        **_kept_mass(rollouts),
    }


def _kept_mass(rollouts: Sequence[Rollout]) -> dict[str, Measurement]:
    """Nothing where an engine cannot say what its filters kept."""
    masses = [rollout.kept_mass for rollout in rollouts]
    known = [mass for mass in masses if mass is not None]
    if len(known) < len(masses):
        return {}
    kept = torch.cat(known) if known else torch.ones(0)
    return {"rollout/kept_mass_mean": Mean(float(kept.sum()), float(kept.numel()))}


def repeated_ngram_frac(ids: Sequence[int], n: int = 4) -> float:
    """The share of a completion's n-grams of token ids that occurred in it before; 0 where it has none."""
    ngrams = list(zip(*(ids[start:] for start in range(n)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _has_equal_rewards(judged: Sequence[JudgedRollout]) -> list[bool]:
    """Per problem: whether all of its judged rollouts were rewarded alike."""
    rewards: dict[str, set[float]] = {}
    for entry in judged:
        if entry.verdict.reward is not None:
            rewards.setdefault(entry.rollout.problem.problem_id, set()).add(entry.verdict.reward)
    return [len(values) == 1 for values in rewards.values()]


def score_metrics(scores: TokenScores) -> dict[str, Measurement]:
    """How the scored tokens look."""
    mask = scores.completion_mask
    everywhere = torch.ones(mask.shape[0], dtype=torch.bool, device=mask.device)
    metrics: dict[str, Measurement] = {
        "objective/kept_token_frac": Mean(scores.loss_mask.sum(), mask.sum()),
        "rollout/without_kept_token_frac": mean_where(~scores.loss_mask.any(dim=-1), everywhere),
        "rollout/without_teacher_frac": mean_where(~(scores.context_weight > 0).any(dim=-1), everywhere),
        "rollout/student_logprob_mean": mean_where(scores.student_logprob, mask),
    }
    if scores.student_entropy is not None:
        metrics["rollout/student_entropy"] = mean_where(scores.student_entropy, scores.loss_mask)
    if scores.teacher_entropy is not None and scores.teacher_entropy.numel():
        where = scores.loss_mask[:, None, :] & (scores.context_weight > 0)[:, :, None]
        metrics["objective/teacher_entropy"] = mean_where(scores.teacher_entropy, where)
    return metrics


def sampler_metrics(scores: TokenScores) -> dict[str, Measurement]:
    """``sampler_gap``: |sampler's logprob - scorer's logprob| over all sampled tokens, nats.

    Both are the log-probabilities of the weights that sampled, at temperature 1 without filters, so anything beyond
    rounding is a misalignment. Of no use once the weights have moved on.
    """
    mask = scores.completion_mask
    gap = (scores.student_logprob.detach() - scores.sampled_logprob).abs()
    return {
        "rollout/sampler_gap_mean": mean_where(gap, mask),
        "rollout/sampler_gap_max": Largest(torch.where(mask, gap, 0.0).amax() if gap.numel() else 0.0),
    }
