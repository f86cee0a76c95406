"""Advantages: how much better a rollout, or a part of one, is than its baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sgsd_lightning.types import TokenScores, Verdict

STD_EPSILON = 1e-4


class Advantages(ABC):
    """Computes one number per sampled token from verdicts. Holds settings, no weights."""

    compares_siblings: bool = False
    """Whether a rollout that is alone in its group has no advantage."""

    @abstractmethod
    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> Tensor:
        """Return [B, T] float32, or [B, 1] if all tokens of a rollout share one; 0 for rollouts that were not judged.

        Rollouts that could not be judged (``verdict.reward`` None) must not change those of others.
        """


class GroupAdvantages(Advantages):
    """A rollout's reward compared with its group's (GRPO, arXiv 2402.03300).

    Equation, with R_i the reward of rollout i and the group's rollouts those that were judged::

        A_i = R_i - mean of R over the group        (/ (standard deviation + 1e-4) with normalise)

    Args:
        normalise: divide by the group's standard deviation, over n - 1.
    """

    compares_siblings = True

    def __init__(self, normalise: bool = True) -> None:
        self.normalise = normalise

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> Tensor:
        like = scores.student_logprob
        rewards = torch.tensor([verdict.reward or 0.0 for verdict in verdicts], dtype=like.dtype, device=like.device)
        return group_advantages(rewards, scores.group, self.normalise, judged(verdicts, like.device))[:, None]


def judged(verdicts: Sequence[Verdict], device: torch.device) -> Tensor:
    """Return [B] bool: the rollouts that could be judged."""
    return torch.tensor([verdict.reward is not None for verdict in verdicts], dtype=torch.bool, device=device)


def group_sums(values: Tensor, group: Tensor) -> Tensor:
    """Return [B]: the sum over each value's group; ``group`` is [B] int64, counted from 0."""
    num_groups = int(group.max()) + 1 if len(group) else 0
    return values.new_zeros(num_groups).index_add(0, group, values)[group]


def group_advantages(rewards: Tensor, group: Tensor, normalise: bool, is_judged: Tensor) -> Tensor:
    """Return [B] advantages; 0 in a group of one or of equal rewards, and for rollouts that were not judged."""
    counted = is_judged.to(rewards.dtype)
    sizes = group_sums(counted, group)
    mean = group_sums(rewards * counted, group) / sizes.clamp(min=1)
    centred = torch.where(is_judged, rewards - mean, 0.0)
    if not normalise:
        return centred
    # over n - 1, as the reference implementations have it
    variance = group_sums(centred.square(), group) / (sizes - 1).clamp(min=1)
    return centred / (variance.sqrt() + STD_EPSILON)
