"""What a verifier says of rollouts."""

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
    """What the verifier says of one rollout."""

    reward: float | None
    """None: it could not be judged. It then takes no part in its group's statistics."""
    accepted: bool | None
    """Whether the rollout counts as right; None where it could not be judged."""
    outcome: int
    """+1 accepted, -1 rejected, 0 no judgement (its teachers' polarity is 0)."""
    answer: str | None
    """The answer found in the completion; None where there was none."""
    spans: tuple[RewardSpan, ...] = ()
    """Dense rewards, in order; empty where the verifier gives none."""
    is_dropped: bool = False
    """The rollout takes no further part in the step; outcome is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedRollout:
    """A rollout and what the verifier says of it."""

    rollout: Rollout
    verdict: Verdict


def without_dropped(judged: Sequence[JudgedRollout]) -> list[JudgedRollout]:
    """The rollouts that take part in the step."""
    return [entry for entry in judged if not entry.verdict.is_dropped]
