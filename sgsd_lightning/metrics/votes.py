"""Majority votes: samples vote for the value of their answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sgsd_lightning.verifiers.math.equivalence import math_equal

TIME_LIMIT_S = 5.0
"""Time limit of all comparisons of one problem's answers together, in seconds."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer of one sample."""

    answer: str
    is_correct: bool


def group_by_value(votes: Sequence[Vote]) -> list[list[Vote]]:
    """Votes for one value together, in the order in which values first come.

    Two answers are compared by value, or by spelling alone once the problem's comparisons have taken their time. One
    that was accepted and one that was not never are one.

    Raises:
        RuntimeError: if math-verify is not installed.
    """
    deadline = time.monotonic() + TIME_LIMIT_S
    groups: list[list[Vote]] = []
    for vote in votes:
        own = next((group for group in groups if _is_same(vote, group[0], deadline)), None)
        if own is None:
            groups.append([vote])
        else:
            own.append(vote)
    return groups


def leading(groups: Sequence[list[Vote]]) -> list[list[Vote]]:
    """Return the groups with the most votes; an empty list without votes."""
    most = max(map(len, groups), default=0)
    return [group for group in groups if len(group) == most]


def _is_same(vote: Vote, other: Vote, deadline: float) -> bool:
    if vote.is_correct != other.is_correct:
        return False
    if "".join(vote.answer.split()) == "".join(other.answer.split()):
        return True
    remaining_s = deadline - time.monotonic()
    return remaining_s > 0 and math_equal(vote.answer, other.answer, remaining_s)
