"""Scores and comparisons of evaluations, against numbers that are worked out here."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from sgsd_lightning.evaluation.comparison import changed_problems, compare
from sgsd_lightning.evaluation.samples import Sample, load_samples, sample_line
from sgsd_lightning.evaluation.scores import score_problems, score_sets
from sgsd_lightning.metrics.intervals import bootstrap_mean, half_width


def samples(
    problem_id: str, right: Sequence[bool], problem_set: str = "set", answers: str | None = None
) -> list[Sample]:
    return [
        Sample(
            problem_set=problem_set,
            problem_id=problem_id,
            index=index,
            is_correct=is_right,
            answer=None if answers and answers[index] == "-" else (answers[index] if answers else str(int(is_right))),
            reference_answer="1",
            completion_tokens=10 + index,
            finish_reason="truncated" if index == 0 else "stopped",
            sources=("gen_1",),
            completion="text\u2028of a sample\n",
        )
        for index, is_right in enumerate(right)
    ]


def test_a_set_s_score_is_what_the_definitions_say() -> None:
    right = {"a": [True, True, False, False], "b": [False] * 4, "c": [True] * 4, "d": [False, False, False, True]}
    (score,) = score_sets([sample for name, row in right.items() for sample in samples(name, row)])
    assert score.average == pytest.approx(statistics.mean(sum(row) / 4 for row in right.values()))
    for k, value in score.pass_at.items():
        drawn = [statistics.mean(any(chosen) for chosen in itertools.combinations(row, k)) for row in right.values()]
        assert value == pytest.approx(statistics.mean(drawn))
    assert list(score.pass_at) == [1, 2, 4]
    assert score.majority == pytest.approx((0.5 + 0 + 1 + 0) / 4)
    assert (score.num_problems, score.samples_per_problem) == (4, 4)
    assert score.mean_tokens == 11.5
    assert score.truncated_frac == 0.25
    assert score.interval.low <= score.average <= score.interval.high


def test_sets_are_scored_alone_and_together_and_ids_of_two_sets_do_not_meet() -> None:
    found = score_sets([*samples("1", [True, True], "first"), *samples("1", [False, False, False], "second")])
    assert [(score.problem_set, score.average) for score in found] == [("first", 1.0), ("second", 0.0), ("all", 0.5)]
    assert [score.samples_per_problem for score in found] == [2, 3, 2]


def test_a_problem_s_line_names_its_most_frequent_answer() -> None:
    (score,) = score_problems(samples("a", [False, True, True, False], answers="21-2"))
    assert (score.most_frequent_answer, score.majority, score.accuracy) == ("2", 0.0, 0.5)
    (silent,) = score_problems(samples("a", [False, False], answers="--"))
    assert (silent.most_frequent_answer, silent.majority) == (None, 0.0)


def test_a_comparison_pairs_problems() -> None:
    first = [
        *samples("a", [True, False]),
        *samples("b", [False, False]),
        *samples("c", [True, True]),
        *samples("x", [True]),
    ]
    second = [
        *samples("a", [True, True]),
        *samples("b", [True, True]),
        *samples("c", [True, False]),
        *samples("y", [True]),
    ]
    (found,) = compare(first, second)
    assert (found.num_problems, found.num_better, found.num_worse) == (3, 2, 1)
    assert found.difference == pytest.approx((0.5 + 1 - 0.5) / 3)
    assert found.second - found.first == pytest.approx(found.difference)
    assert (found.num_gained, found.num_lost) == (2, 1)
    assert found.is_sure is False
    assert [mine.problem_id for mine, _ in changed_problems(first, second)] == ["b", "a", "c"]
    with pytest.raises(ValueError, match="no problem in common"):
        compare(first, samples("z", [True]))


def test_what_is_hard_for_both_does_not_count_as_doubt() -> None:
    """Problems differ much, the difference does not: a paired interval is narrow where each one alone is wide."""
    hard = [[False] * 10 for _ in range(20)] + [[True] * 9 + [False] for _ in range(20)]
    better = [[True, *row[1:]] for row in hard[:20]] + [[True] * 10 for _ in range(20)]
    first = [sample for i, row in enumerate(hard) for sample in samples(str(i), row)]
    second = [sample for i, row in enumerate(better) for sample in samples(str(i), row)]
    (found,) = compare(first, second)
    assert found.difference == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1, 0.1))
    assert found.is_sure
    (alone,) = score_sets(first)
    assert alone.interval.high - alone.interval.low > 0.2


def test_the_bootstrap_agrees_with_the_normal_interval_of_many_values() -> None:
    values = [(7 * i % 100) / 100 for i in range(400)]
    found = bootstrap_mean(values)
    width = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    assert found.low == pytest.approx(statistics.mean(values) - width, abs=0.005)
    assert found.high == pytest.approx(statistics.mean(values) + width, abs=0.005)
    assert bootstrap_mean(values) == found
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_mean([])


def test_the_interval_of_a_few_runs_is_student_s() -> None:
    values = [0.83, 0.79, 0.85]
    assert half_width(values) == pytest.approx(4.302653 * statistics.stdev(values) / math.sqrt(3), rel=1e-4)
    assert half_width([0.5]) is None
    with pytest.raises(ValueError, match="2 to 10 runs; got 11"):
        half_width([0.5] * 11)


def test_samples_go_through_a_file_and_each_counts_once(tmp_path: Path) -> None:
    made = samples("a", [True, False, True])
    (tmp_path / "samples-0of2.jsonl").write_text("".join(map(sample_line, made[:2])), encoding="utf-8")
    torn = sample_line(made[2]) + sample_line(made[0])[:40]
    (tmp_path / "samples-1of2.jsonl").write_text(sample_line(made[0]) + torn, encoding="utf-8")
    assert load_samples(tmp_path) == made
    (tmp_path / "samples-2of2.jsonl").write_text('{"problem_set": "x"}\n')
    with pytest.raises(ValueError, match=r"samples-2of2.jsonl:1: not a sample of an evaluation; missing: answer, "):
        load_samples(tmp_path)
