"""Verdicts of a verifier on rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgsd_lightning.types.rollouts import Rollout


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardSpan:
    """The reward of one part of a completion."""

    start: int
    """Index of its first token among the T sampled ids."""
    end: int
    """One beyond its last token."""
    reward: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A verifier's verdict on one rollout."""

    reward: float | None
    """None if it could not be judged; it is then left out of its group's statistics."""
    accepted: bool | None
    """Whether the rollout counts as right; None if it could not be judged."""
    outcome: int
    """+1 accepted, -1 rejected, 0 no judgement (its teachers' polarity is 0)."""
    answer: str | None
    """The answer found in the completion; None if there was none."""
    spans: tuple[RewardSpan, ...] = ()
    """Dense rewards, in order; empty if the verifier gives none."""
    is_dropped: bool = False
    """Whether the rollout is left out of the rest of the step; outcome is then 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedRollout:
    """A rollout and its verdict."""

    rollout: Rollout
    verdict: Verdict


def without_dropped(judged: Sequence[JudgedRollout]) -> list[JudgedRollout]:
    """Return the rollouts that are not dropped."""
    return [entry for entry in judged if not entry.verdict.is_dropped]
