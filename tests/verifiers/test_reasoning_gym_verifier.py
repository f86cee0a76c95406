"""Answers are taken out of completions and scored as reasoning-gym scores them."""

from __future__ import annotations

from typing import Any

import pytest

from sgsd_lightning.data import ReasoningGymProblems
from sgsd_lightning.types import FinishReason, Problem
from sgsd_lightning.verifiers import ReasoningGymVerifier, RewardFunction
from sgsd_lightning.verifiers.reasoning_gym_score import MAX_ANSWER_LENGTH, extract
from tests.support.tiny import tiny_rollout


@pytest.mark.parametrize(
    ("text", "boxed", "last_line", "whole"),
    [
        ("7", None, "7", "7"),
        ("  7 \n", None, "7", "7"),
        ("3 + 4 = 7\n7\n\n", None, "7", "3 + 4 = 7\n7"),
        (r"So \boxed{7}." + "\n", "7", r"So \boxed{7}.", r"So \boxed{7}."),
        (r"\boxed{6} no, \boxed{7}", "7", r"\boxed{6} no, \boxed{7}", r"\boxed{6} no, \boxed{7}"),
        (r"\boxed{7", None, r"\boxed{7", r"\boxed{7"),
        ("", None, None, None),
        (" \n\t", None, None, None),
        ("9" * (MAX_ANSWER_LENGTH + 1), None, None, None),
    ],
)
def test_an_answer_is_taken_where_the_setting_says(
    text: str, boxed: str | None, last_line: str | None, whole: str | None
) -> None:
    assert extract(text, "boxed") == boxed
    assert extract(text, "last_line") == last_line
    assert extract(text, "whole") == whole


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 11.", "11"),
        ("1 + 5 = 6", "6"),
        ("The final answer to this problem is -4.", "-4"),
        ("so 7-2", "2"),
        ("(8)-3", "3"),
        ("= 2.50", "2.50"),
        ("x = -0.5, say", "-0.5"),
        ("Hm.", None),
    ],
)
def test_a_number_is_found_at_the_end_of_a_sentence(text: str, answer: str | None) -> None:
    """As the packaged model words its answers. A minus between two numbers is no sign."""
    assert extract(text, "last_number") == answer


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"verifier\.extraction must be one of boxed, last_number, last_line, whole"):
        ReasoningGymVerifier(extraction="first_line")  # type: ignore[arg-type]
    for value in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"verifier\.accept_from must be above 0 and at most 1"):
            ReasoningGymVerifier(accept_from=value)


def test_problems_of_other_sources_are_refused() -> None:
    other = tiny_rollout(Problem(problem_id="p1", text="1 + 1", answer="2"), [1], [2], text="2")
    with pytest.raises(ValueError, match=r"p1 has no source_dataset among its columns\. Take MathAnswer"):
        ReasoningGymVerifier().grade(other)


@pytest.fixture(scope="module")
def reasoning_gym() -> Any:
    return pytest.importorskip("reasoning_gym", reason="the extra laptop is not installed: make test-laptop")


@pytest.mark.parametrize("dataset", ["chain_sum", "spell_backward", "count_primes", "knights_knaves", "word_sorting"])
def test_rewards_are_those_of_the_data_set(dataset: str, reasoning_gym: Any) -> None:
    generated = reasoning_gym.create_dataset(dataset, seed=3, size=4)
    problems = ReasoningGymProblems(dataset, 4, 3).load()
    verifier = ReasoningGymVerifier(extraction="whole")
    for entry, problem, other in zip(generated, problems, [*problems[1:], problems[0]], strict=True):
        for text in (problem.answer, other.answer, f"It is {problem.answer}.", "no"):
            grade = verifier.grade(tiny_rollout(problem, [1], [2], text=text))
            assert grade.reward == generated.score_answer(text.strip(), entry)
            assert grade.is_accepted is (grade.reward >= 1)
        assert verifier.grade(tiny_rollout(problem, [1], [2], text=problem.answer)).is_accepted
    assert verifier.counts() == {"scorer_failures": 0.0}


def test_part_of_a_reward_counts_as_right_where_that_is_asked_for(reasoning_gym: Any) -> None:
    (problem,) = ReasoningGymProblems("chain_sum", 1, 1).load()
    nearly = tiny_rollout(problem, [1], [2], text=f"= {problem.answer}")
    assert ReasoningGymVerifier("whole", accept_from=0.25).grade(nearly).is_accepted
    grade = ReasoningGymVerifier("whole").grade(nearly)
    assert grade.is_accepted is False
    assert 0 < (grade.reward or 0) < 1


def test_a_rollout_without_an_answer_is_wrong_and_a_truncated_one_neutral(reasoning_gym: Any) -> None:
    (problem,) = ReasoningGymProblems("chain_sum", 1, 1).load()
    rollouts = [
        tiny_rollout(problem, [1], [2], text=text, finish_reason=reason)
        for text, reason in (("", FinishReason.STOPPED), ("1 plus", FinishReason.TRUNCATED))
    ]
    verdicts = [judged.verdict for judged in ReasoningGymVerifier().verify(rollouts)]
    assert [verdict.outcome for verdict in verdicts] == [-1, 0]
    assert [verdict.reward for verdict in verdicts] == [0.0, 0.0]


@pytest.mark.parametrize("dataset", ["countdown", "spiral_matrix", "simple_integration", "string_insertion"])
def test_a_scorer_that_runs_answers_is_used_only_if_that_is_accepted(dataset: str, reasoning_gym: Any) -> None:
    (problem,) = ReasoningGymProblems(dataset, 1, 1).load()
    rollout = tiny_rollout(problem, [1], [2], text=problem.answer)
    with pytest.raises(
        ValueError, match=f"scorer of {dataset} runs a model's answer as Python; set verifier.runs_answers"
    ):
        ReasoningGymVerifier(extraction="whole").grade(rollout)
    assert ReasoningGymVerifier(extraction="whole", runs_answers=True).grade(rollout).is_accepted


def test_a_scorer_that_fails_judges_nothing_and_is_counted(reasoning_gym: Any) -> None:
    (problem,) = ReasoningGymProblems("chain_sum", 1, 1).load()
    verifier = ReasoningGymVerifier()
    verifier._scorers["chain_sum"] = lambda answer, entry: 1 / 0
    grade = verifier.grade(tiny_rollout(problem, [1], [2], text="1"))
    assert (grade.reward, grade.is_accepted) == (None, None)
    assert verifier.counts() == {"scorer_failures": 1.0}


def test_a_reward_function_of_trls_signature_gives_the_same(reasoning_gym: Any) -> None:
    """The function that docs/extending.md shows."""
    problems = ReasoningGymProblems("chain_sum", 6, 1).load()
    rollouts = [tiny_rollout(p, [1], [2], text=t) for p in problems for t in (p.answer, f"= {p.answer}", "x")]
    function = RewardFunction("examples.reasoning_gym_reward.score", completions="text", accept_above=0.99)
    grades = function.grade_all(rollouts)
    expected = ReasoningGymVerifier(extraction="last_line").grade_all(rollouts)
    assert [g.reward for g in grades] == [g.reward for g in expected]
    assert [g.is_accepted for g in grades] == [g.is_accepted for g in expected]
    assert {g.is_accepted for g in grades} == {True, False}
