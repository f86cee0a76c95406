"""The verifier of mathematical answers: grades of completions and complaints about published answers."""

from __future__ import annotations

import pytest

from sgsd_lightning.types import FinishReason, Problem, Rollout
from sgsd_lightning.verifiers import MathAnswer
from tests.support.tiny import tiny_rollout


def _rollout(completion_text: str, answer: str, finish_reason: FinishReason = FinishReason.STOPPED) -> Rollout:
    problem = Problem(problem_id="p", text="?", answer=answer)
    return tiny_rollout(problem, [1], [], text=completion_text, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("completion_text", "reward", "found"),
    [
        (r"It is \boxed{3}, no: \boxed{\frac{1}{2}}.", 1.0, r"\frac{1}{2}"),
        (r"It is \boxed{0.5}, no: \boxed{3}", 0.0, "3"),
        ("It is 0.5", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_the_last_answer_is_graded(completion_text: str, reward: float, found: str | None) -> None:
    grade = MathAnswer().grade(_rollout(completion_text, "0.5"))
    assert (grade.reward, grade.answer) == (reward, found)


@pytest.mark.parametrize(
    ("truncated_rollouts", "outcome", "is_dropped"),
    [("failure", -1, False), ("neutral", 0, False), ("dropped", 0, True)],
)
def test_truncated_rollouts_count_as_the_setting_says(truncated_rollouts: str, outcome: int, is_dropped: bool) -> None:
    verifier = MathAnswer(truncated_rollouts=truncated_rollouts)  # type: ignore[arg-type]
    rollouts = [_rollout(text, "5", FinishReason.TRUNCATED) for text in (r"so \boxed{", r"\boxed{5} and")]
    unfinished, finished = (judged.verdict for judged in verifier.verify(rollouts))
    assert (unfinished.outcome, unfinished.is_dropped) == (outcome, is_dropped)
    assert (finished.outcome, finished.is_dropped) == (1, False)


@pytest.mark.parametrize("answer", ["5", r"\frac{1}{2}", "No", "B", r"\{1, 2\}", "∞", r"\emptyset", "Ω", r"a \\ b"])
def test_answers_with_something_to_compare_are_accepted(answer: str) -> None:
    assert MathAnswer().check_answer(answer) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "nothing of it"),
        ("  ", "nothing of it"),
        ("$$", "nothing of it"),
        ("???", "nothing of it"),
        (r"\frac{1}{", "braces"),
        ("1}", "braces"),
        ("1" * 3000, "longer than 2000"),
    ],
)
def test_answers_that_cannot_be_compared_are_complained_about(answer: str, why: str) -> None:
    complaint = MathAnswer().check_answer(answer)
    assert complaint is not None
    assert why in complaint


@pytest.mark.parametrize("time_limit_s", [0.0, -1.0, float("nan")])
def test_a_time_limit_must_be_positive(time_limit_s: float) -> None:
    with pytest.raises(ValueError, match="time_limit_s must be above 0"):
        MathAnswer(time_limit_s=time_limit_s)
