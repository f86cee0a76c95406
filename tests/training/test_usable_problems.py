"""Problems that a run cannot learn from: refused with the first five, or dropped."""

from __future__ import annotations

import logging

import pytest

from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.training.usable_problems import keep_usable_problems
from sgsd_lightning.types import Problem
from sgsd_lightning.verifiers import MathAnswer

VERIFIER = MathAnswer()
SOUND = Problem(problem_id="sound", text="What is 1 + 1?", answer="2", solution=r"$\frac{4}{2}$")


def problem(text: str, answer: str, name: str = "other", **fields: object) -> Problem:
    return Problem(problem_id=name, text=text, answer=answer, **fields)  # type: ignore[arg-type]


UNUSABLE = {
    "placeholder": ([problem("Prove it.", "proof")], r"other \('proof': it says that there is no answer"),
    "answer": ([problem("q", "\x0crac{1}{2}")], r"LaTeX lost its backslash, '\\x0crac' for \\frac"),
    "text": ([problem("Is $\x0crac{1}{2}$ 0.5?", "1")], r"other \(problem: LaTeX lost its backslash, .* for \\frac"),
    "solution": ([problem("q", "1", solution="$2\times 3$")], r"other \(solution: .* for \\times"),
    "shards": ([problem("q", "1", shards=("a", "$\theta$"))], r"other \(shards: .* for \\theta"),
    "two answers": (
        [problem("a  b", "1", "first"), problem("a b", "2", "second")],
        r"first and second \(one text, two answers: '1' and '2'\)",
    ),
}


@pytest.mark.parametrize(("bad", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_problem_is_refused_with_id_cause_and_remedy_or_dropped(
    bad: list[Problem], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    remedy = "Correct or remove them, .* or set data.init_args.unusable_problems to drop"
    with pytest.raises(ValueError, match=rf"{len(bad)} of {len(bad) + 1} problems have .*{message}.*{remedy}"):
        keep_usable_problems([SOUND, *bad], VERIFIER, "train")
    with caplog.at_level(logging.WARNING):
        assert keep_usable_problems([SOUND, *bad], VERIFIER, "train", "drop") == [SOUND]
    assert "dropped" in caplog.text
    with pytest.raises(ValueError, match=f"{len(bad)} of {len(bad)} problems"):
        keep_usable_problems(bad, VERIFIER, "train", "drop")


def test_the_first_five_are_listed() -> None:
    bad = [problem(f"q{number}", "N/A", f"p{number}") for number in range(8)]
    with pytest.raises(ValueError, match=r"8 of 8 problems .* p0 .*p4 \([^)]*\) and 3 more\."):
        keep_usable_problems(bad, VERIFIER, "train")


def test_the_same_value_in_two_spellings_contradicts_nothing() -> None:
    twice = [problem("q", "1/2", "a"), problem("q", "0.5", "b"), problem("q", r"\frac{1}{2}", "c")]
    assert keep_usable_problems(twice, VERIFIER, "train") == twice


def test_a_benchmark_is_measured_as_it_was_published(caplog: pytest.LogCaptureFixture) -> None:
    damaged = [problem("Is $\x0crac{1}{2}$ 0.5?", "1")]
    with caplog.at_level(logging.WARNING):
        assert keep_usable_problems(damaged, VERIFIER, "validation") == damaged
    assert "1 of 1 validation problems hold LaTeX that lost its backslashes" in caplog.text
    with pytest.raises(ValueError, match="it says that there is no answer"):
        keep_usable_problems([problem("q", "unknown")], VERIFIER, "validation")


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(ValueError, match=r"data.unusable_problems must be one of refuse, drop; got 'keep'"):
        ProblemDataModule(unusable_problems="keep")  # type: ignore[arg-type]
