"""Answers that say that there is none, and answers that only look like it."""

from __future__ import annotations

import pytest

from sgsd_lightning.verifiers import MathAnswer

PLACEHOLDERS = (
    *("proof", "Proof.", "(proof)", r"\text{proof}", r"\boxed{Proof}", "$proof$", "the proof is omitted", "QED"),
    *("notfound", "not found", "not_found", "NotFound", "answer not found", "No answer found", "no answer", "unknown"),
    *("None", "none", "null", "N/A", "n/a", "NA", "n.a.", "not available", "Not applicable", "TBD", "[missing]"),
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "see solution", "See the solution above.", "see proof", "<answer>"),
    *("…", r"\ldots", r"\square", r"$\blacksquare$", "it is proved", "It has been proven.", "The statement is shown"),
)
ANSWERS = (
    *(r"\infty", "infinity", r"-\infty", r"\text{None}", "no solution", "undefined", "DNE", "does not exist"),
    *("0", "Na", "A", "true", "No", "yes", r"\emptyset", "cannot be determined", "impossible", "no real solutions"),
    *("e", "i", "-1", r"\text{(A)}", r"\frac{1}{2}", "n", "inf A", "2 + 2"),
    *(r"1, 2, \ldots", r"\square ABCD", "square", "is proportional to x"),
)


@pytest.mark.parametrize("answer", PLACEHOLDERS)
def test_a_placeholder_is_no_answer(answer: str) -> None:
    assert MathAnswer().check_answer(answer) == "it says that there is no answer to compare with"


@pytest.mark.parametrize("answer", ANSWERS)
def test_words_and_signs_that_are_answers_stay(answer: str) -> None:
    assert MathAnswer().check_answer(answer) is None
