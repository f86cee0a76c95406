"""Leak guards: an answer is found in any spelling, not in what only looks like it; so are words of an evaluation."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.skills.leaks.answers import contains_answer, number_of
from sgsd_lightning.skills.leaks.evaluation_problems import EvaluationProblems, normalise_problem_text
from sgsd_lightning.skills.leaks.guard import LeakGuard

EVALUATIONS = ("aime24", "aime25", "aime26", "hmmt25", "math500")
PROBLEM = "Find the number of ordered pairs $(a, b)$ of positive integers with $a + b = 90$ and $ab$ odd."


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("12", "the result is 12."),
        ("12", "the result is $12$, as it must be"),
        ("12", "it follows that x=12"),
        ("12", "12.0 or so"),
        ("12", r"\frac{24}{2}"),
        ("12", "24/2"),
        ("12", "a length of 12 cm, or 12cm"),
        ("12", "roots 2,12,30"),
        ("12", "(-12)"),
        ("-12", "subtract 12"),
        ("x = 12", "there are 12"),
        (r"12\text{ cm}", "12 wide"),
        (r"12^\circ", "an angle of 12°"),
        (r"\$12.00", r"it costs \$12"),
        (r"50\%", "50 of them"),
        ("1,000", "exactly 1000 ways"),
        ("1000", "exactly 1{,}000 ways"),
        (r"\frac{1}{2}", "a probability of 0.5"),
        (r"\dfrac12", "a probability of 1/2"),
        ("0.5", r"$\tfrac{3}{6}$"),
        ("2", "divide by 2"),
        ("p - q", "the sum is $p-q$"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"the point $(3,\frac{\pi}{2})$"),
        (r"\left( 3, \frac{\pi}{2} \right)", "the point (3, π/2)"),
        (r"\text{Evelyn}", "it was evelyn who ran"),
        (r"\text{(B)}", "choose (B)"),
        ("B", "choose B."),
        (r"3\sqrt{13}", r"$3 \sqrt{13}$"),
    ],
)
def test_an_answer_is_found_whatever_its_spelling(answer: str, text: str) -> None:
    assert contains_answer(["nothing", text], answer)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("12", "120 or 512 or 1.2 or 12.5 or 0.12 or 3.12"),
        ("12", "x_12, x_{12}, x^12 and x^{12}"),
        ("12", "the term 12x and the term 12n^2"),
        ("12", "2^{12} or 12^2"),
        ("12", "1,200 or 12,000"),
        ("12", r"\frac{12}{5} and 12/5"),
        ("1/2", "half of it"),
        (r"\frac{1}{2}", "one of 1 and 2"),
        ("p - q", "the sum is $p - qr$"),
        (r"\text{Evelyn}", "Evelyne"),
        ("B", "a box is built"),
        ("a", "A box, an arc, abacus"),
        ("even", "seven evenings"),
        ("", "anything"),
        ("$ $", "anything"),
    ],
)
def test_what_only_looks_like_the_answer_is_let_through(answer: str, text: str) -> None:
    assert not contains_answer([text], answer)


@settings(deadline=None, max_examples=40)
@given(st.fractions(min_value=-10_000, max_value=10_000, max_denominator=50))
def test_a_number_is_found_as_a_fraction_in_lowest_terms_or_not(value: Fraction) -> None:
    top, bottom = abs(value.numerator), value.denominator
    for answer in (f"{value}", f"\\frac{{{top}}}{{{bottom}}}", f"${top}/{bottom}$"):
        assert contains_answer([f"so it is \\frac{{{3 * top}}}{{{3 * bottom}}}, which ends it"], answer)
        assert not contains_answer([f"so it is {top + bottom}/{bottom}"], answer)


def test_numbers_are_told_from_other_answers() -> None:
    assert number_of("-3,500.5") == Fraction(7001, 2)
    assert number_of(r"\frac{7}{0}") is None
    assert number_of("2x") is None
    assert number_of("(1, 2)") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Find $x+1$.", r"find \(x + 1\)"),
        (r"Let $\left(\dfrac{1}{2}\right)$ be", r"let (\frac{1}{2}) be"),
        ("What is\n  $2\\times 3$ ?", "what is 2 \\times 3"),
        (r"\text{Find} the area\,!", "Find the area"),
    ],
)
def test_spelling_does_not_make_another_problem(first: str, second: str) -> None:
    assert normalise_problem_text(first) == normalise_problem_text(second)


def test_another_operator_or_number_makes_another_problem() -> None:
    guard = EvaluationProblems(["Solve $x + 1 = 3$."])
    assert guard.contains("solve x+1=3")
    assert not guard.contains("Solve $x - 1 = 3$.")
    assert not guard.contains("Solve $x + 1 = 4$.")
    assert len(guard) == 1


def test_eight_words_in_a_row_are_an_overlap_and_seven_are_none() -> None:
    guard = EvaluationProblems([PROBLEM])
    assert guard.overlap("When you find THE number of ordered pairs (a, b), of anything") == (
        "find the number of ordered pairs a b"
    )
    assert guard.overlap("When asked for the number of ordered pairs (a, b), list them") is None
    assert (
        EvaluationProblems([PROBLEM], ngram_words=4).overlap("the number of ordered triples") == "the number of ordered"
    )


def test_a_short_problem_must_stand_there_as_a_whole() -> None:
    guard = EvaluationProblems(["Compute $\\sin 60^\\circ$.", "Why?"])
    assert guard.overlap("For example compute sin 60° with a triangle") == "compute sin 60 circ"
    assert guard.overlap("For example compute sin 30° with a triangle. Why?") is None


def test_a_turn_of_phrase_of_many_problems_is_no_overlap() -> None:
    phrase = "where m and n are relatively prime positive integers find m plus n"
    problems = [f"The ratio of the {name} is written m over n {phrase}" for name in ("circles", "squares", "triangles")]
    assert EvaluationProblems(problems[:2]).overlap(phrase) is not None
    assert EvaluationProblems(problems).overlap(phrase) is None
    assert EvaluationProblems([problems[0]] * 3).overlap(phrase) is not None


def test_the_guard_says_what_is_given_away() -> None:
    guard = LeakGuard([PROBLEM])
    fields = {"title": "Count pairs", "principle": "Odd times odd is odd, so there are 45."}
    assert guard.check(fields.values(), "Another problem", "45") == (
        "it contains the answer of the problem it comes from, '45'"
    )
    assert guard.check(fields.values(), "Another problem", "46") is None
    assert guard.check(fields.values()) is None
    assert guard.check(fields.values(), PROBLEM.upper().replace("$", ""), "46") == "it comes from an evaluation problem"
    reason = guard.check(["To find the number of ordered pairs (a, b), count."], "Another problem", "46")
    assert reason == "it shares words with an evaluation problem: 'find the number of ordered pairs a b'"
    assert LeakGuard().check(["Find the number of ordered pairs (a, b) of positive integers"]) is None


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"leaks.ngram_words must be at least 3; got 2"):
        LeakGuard([], ngram_words=2)


def problem_texts(folder: Path, name: str) -> list[str]:
    return [json.loads(line)["problem"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_real_evaluation_problems_are_found_inside_items_and_real_banks_pass(shared_data: Path) -> None:
    texts = [text for name in EVALUATIONS for text in problem_texts(shared_data, name)]
    start = time.perf_counter()
    guard = LeakGuard(texts)
    assert len(guard.evaluation) == len(texts) == 620
    for text in problem_texts(shared_data, "aime24"):
        assert guard.evaluation.contains(f"  {text.replace('$', '')} ")
        half = " ".join(text.split()[: max(16, len(text.split()) // 2)])
        reason = guard.check(["Count carefully.", f"As in: {half}"])
        assert reason is not None
        assert reason.startswith("it shares words")
    for name in ("skill_bank_qwen3_1b", "skill_bank_qwen3_4b", "skill_bank_qwen3_8b", "raw_skill_candidates_qwen3_4b"):
        bank = SkillBank.load(shared_data / f"{name}.json")
        assert [
            guard.check([item.text])
            for item in (*bank.general_skills, *bank.common_mistakes)
            if guard.check([item.text])
        ] == []
    assert time.perf_counter() - start < 5


def test_no_training_problem_of_the_shared_set_is_an_evaluation_problem(shared_data: Path) -> None:
    guard = EvaluationProblems(text for name in EVALUATIONS for text in problem_texts(shared_data, name))
    training = problem_texts(shared_data, "math_train_3k")
    assert sum(guard.contains(text) for text in training) == 0
    assert EvaluationProblems(training).contains(training[-1])
