"""Compares two evaluations of the same problems: the difference, its interval, and the problems that changed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sgsd_lightning.evaluation.samples import Sample
from sgsd_lightning.evaluation.scores import ALL, ProblemScore, score_problems
from sgsd_lightning.metrics.intervals import Interval, bootstrap_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The second evaluation compared with the first, on their common problems."""

    problem_set: str
    num_problems: int
    first: float
    """avg@k."""
    second: float
    difference: float
    """Second minus first."""
    interval: Interval
    """The 95 % interval of the difference: a paired bootstrap over problems, so that a problem's difficulty for both
    adds no variance."""
    num_better: int
    """Problems with a larger share of correct samples in the second."""
    num_worse: int
    num_gained: int
    """Problems whose most frequent answer became right."""
    num_lost: int
    """Problems whose most frequent answer became wrong."""

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.interval.low <= 0 <= self.interval.high


def compare(first: Sequence[Sample], second: Sequence[Sample]) -> list[Comparison]:
    """Compare per problem set, and over all together if there are several.

    Raises:
        ValueError: if they have no problem in common.
    """
    theirs = {_key(score): score for score in score_problems(second)}
    pairs = [(score, theirs[_key(score)]) for score in score_problems(first) if _key(score) in theirs]
    if not pairs:
        raise ValueError("the two evaluations have no problem in common; were they made of the same problem sets?")
    sets = list(dict.fromkeys(mine.problem_set for mine, _ in pairs))
    found = [_comparison(name, [pair for pair in pairs if pair[0].problem_set == name]) for name in sets]
    return [*found, _comparison(ALL, pairs)] if len(sets) > 1 else found


def changed_problems(first: Sequence[Sample], second: Sequence[Sample]) -> list[tuple[ProblemScore, ProblemScore]]:
    """Return the common problems whose accuracy differs, those that changed most first."""
    theirs = {_key(score): score for score in score_problems(second)}
    pairs = [(score, theirs[_key(score)]) for score in score_problems(first) if _key(score) in theirs]
    changed = [(mine, other) for mine, other in pairs if mine.accuracy != other.accuracy]
    return sorted(changed, key=lambda pair: -abs(pair[1].accuracy - pair[0].accuracy))


def _key(score: ProblemScore) -> tuple[str, str]:
    return score.problem_set, score.problem_id


def _comparison(name: str, pairs: Sequence[tuple[ProblemScore, ProblemScore]]) -> Comparison:
    differences = [second.accuracy - first.accuracy for first, second in pairs]
    return Comparison(
        problem_set=name,
        num_problems=len(pairs),
        first=statistics.fmean(first.accuracy for first, _ in pairs),
        second=statistics.fmean(second.accuracy for _, second in pairs),
        difference=statistics.fmean(differences),
        interval=bootstrap_mean(differences),
        num_better=sum(difference > 0 for difference in differences),
        num_worse=sum(difference < 0 for difference in differences),
        num_gained=sum(first.majority <= 0.5 < second.majority for first, second in pairs),
        num_lost=sum(second.majority <= 0.5 < first.majority for first, second in pairs),
    )
