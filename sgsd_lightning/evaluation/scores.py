"""Scores the samples of an evaluation: accuracies with intervals, per problem set and per problem."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sgsd_lightning.evaluation.samples import Sample
from sgsd_lightning.metrics.accuracy import MajorityAtK, PassAtK
from sgsd_lightning.metrics.intervals import Interval, bootstrap_mean
from sgsd_lightning.metrics.votes import Vote, group_by_value, leading
from sgsd_lightning.types import FinishReason

ALL = "all"
"""The name of all problem sets together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemScore:
    """One problem's samples."""

    problem_set: str
    problem_id: str
    reference_answer: str
    num_samples: int
    accuracy: float
    """The share of correct samples."""
    majority: float
    """1 where the most frequent answer, by value, is right, 0 where it is not, between where answers tie."""
    most_frequent_answer: str | None
    """In its most frequent spelling."""
    mean_tokens: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SetScore:
    """One problem set's samples, k of each problem."""

    problem_set: str
    num_problems: int
    samples_per_problem: int
    """k: the fewest samples that a problem has."""
    average: float
    """avg@k over all samples."""
    interval: Interval
    """The 95 % interval of ``average``, by bootstrap over problems."""
    pass_at: dict[int, float]
    """pass@j, unbiased, for j = 1, 2, 4 .. and k."""
    majority: float
    mean_tokens: float
    truncated_frac: float
    answer_found_frac: float


def score_problems(samples: Sequence[Sample]) -> list[ProblemScore]:
    """Score problems, in the order of their first samples."""
    return [_problem_score(of_problem) for of_problem in _by_problem(samples)]


def score_sets(samples: Sequence[Sample]) -> list[SetScore]:
    """Score problem sets, in the order of their first samples, and all together if there are several."""
    by_set: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_set[sample.problem_set].append(sample)
    scores = [_set_score(name, of_set) for name, of_set in by_set.items()]
    return [*scores, _set_score(ALL, samples)] if len(by_set) > 1 else scores


def _by_problem(samples: Sequence[Sample]) -> list[list[Sample]]:
    problems: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        problems[sample.problem_set, sample.problem_id].append(sample)
    return [sorted(of_problem, key=lambda sample: sample.index) for of_problem in problems.values()]


def _problem_score(samples: Sequence[Sample]) -> ProblemScore:
    first = samples[0]
    leaders = leading(group_by_value([Vote(s.answer, s.is_correct) for s in samples if s.answer is not None]))
    return ProblemScore(
        problem_set=first.problem_set,
        problem_id=first.problem_id,
        reference_answer=first.reference_answer,
        num_samples=len(samples),
        accuracy=statistics.fmean(sample.is_correct for sample in samples),
        majority=_majority([samples]),
        most_frequent_answer=statistics.mode(vote.answer for vote in leaders[0]) if leaders else None,
        mean_tokens=statistics.fmean(sample.completion_tokens for sample in samples),
    )


def _set_score(name: str, samples: Sequence[Sample]) -> SetScore:
    problems = _by_problem(samples)
    accuracies = [statistics.fmean(sample.is_correct for sample in of_problem) for of_problem in problems]
    k = min(map(len, problems))
    return SetScore(
        problem_set=name,
        num_problems=len(problems),
        samples_per_problem=k,
        average=statistics.fmean(accuracies),
        interval=bootstrap_mean(accuracies),
        pass_at={j: _pass_at(problems, j) for j in _powers_of_two(k)},
        majority=_majority(problems),
        mean_tokens=statistics.fmean(sample.completion_tokens for sample in samples),
        truncated_frac=statistics.fmean(sample.finish_reason == FinishReason.TRUNCATED for sample in samples),
        answer_found_frac=statistics.fmean(sample.answer is not None for sample in samples),
    )


def _pass_at(problems: Sequence[Sequence[Sample]], k: int) -> float:
    metric = PassAtK(k)
    for samples in problems:  # a problem may have more samples than another
        metric.update(torch.tensor([[sample.is_correct for sample in samples]]))
    return float(metric.compute())


def _majority(problems: Sequence[Sequence[Sample]]) -> float:
    metric = MajorityAtK()
    for samples in problems:
        metric.update(
            [[sample.answer for sample in samples]], torch.tensor([[sample.is_correct for sample in samples]])
        )
    return float(metric.compute())


def _powers_of_two(k: int) -> list[int]:
    """Return 1, 2, 4 .. below k, and k."""
    return [*(2**i for i in range(k.bit_length()) if 2**i < k), k]
