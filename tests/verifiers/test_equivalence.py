"""Two spellings of one value are equal, two values are not, and nothing hangs."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgsd_lightning.verifiers import MathAnswer, extract_answer, math_equal
from sgsd_lightning.verifiers.equivalence import JUDGE
from sgsd_lightning.verifiers.exact_numbers import exact_number

HOSTILE = [
    r"9^{9^{9^{9}}}",
    "(" * 900 + "1" + ")" * 900,
    "(10^9)!",
    r"\binom{10^8}{10^7}",
    r"\sum_{n=1}^{10^{12}} n^{n}",
]


@pytest.mark.parametrize(
    ("predicted", "answer"),
    [
        ("1/2", r"\dfrac{1}{2}"),
        ("0.5", r"\frac12"),
        ("1,000", "1000"),
        ("12{,}345", "12345"),
        ("50%", "50"),
        (r"50\%", "50"),
        ("$18", "18"),
        ("24 cm", "24"),
        (r"12\text{ cm}^2", "12"),
        (r"90^\circ", "90"),
        ("x = 5", "5"),
        (r"x \in [1, 2]", "[1,2]"),
        ("[-1;0)", "[-1, 0)"),
        ("(1; 2)", "(1, 2)"),
        ("[-1,0) ∪ (0, ∞)", r"[-1,0)\cup(0,+\infty)"),
        ("√3/2", r"\frac{\sqrt{3}}{2}"),
        ("m ≤ 2", r"m \leqslant 2"),
        (r"2 \times 3^{5}", "2·3^5"),
        ("(B)", "B"),
        (r"\text{(B)}", "B"),
        ("C. 12", "C"),
        ("x = 1 or x = 2", "1, 2"),
        ("2, 1", "1, 2"),
        ("(m, n) = (5, 3)", "(5,3)"),
        ("a) 4; b) 12", "4, 12"),
        (r"\frac{1}{2} < a < 1", r"a \in \left(\frac{1}{2}, 1\right)"),
        ("x^2 + 2x + 1", "(x+1)^2"),
        ("No", "no"),
        (r"\(7\)", "$7$"),
    ],
)
def test_two_spellings_of_one_value_are_equal_both_ways(predicted: str, answer: str) -> None:
    assert math_equal(predicted, answer)
    assert math_equal(answer, predicted)


@pytest.mark.parametrize(
    ("predicted", "answer"),
    [
        ("5", "6"),
        ("-5", "5"),
        ("(1, 2)", "(2, 1)"),
        ("[1, 2)", "[1, 2]"),
        ("1, 2", "1, 2, 3"),
        ("A", "B"),
        ("x^2", "x^3"),
        ("yes", "no"),
        ("f(x) = 0", "0"),
        ("(x-10)^2+y^2=9", "9"),
        ("", "5"),
        ("0.333", "1/3"),
        ("5", ""),
    ],
)
def test_different_values_are_not_equal(predicted: str, answer: str) -> None:
    assert not math_equal(predicted, answer)
    assert not math_equal(answer, predicted)


NUMBERS = st.integers(-10_000, 10_000)
LATEX = st.one_of(
    NUMBERS.map(str),
    st.builds(lambda top, bottom: rf"\frac{{{top}}}{{{bottom}}}", NUMBERS, st.integers(1, 999)),
    st.lists(NUMBERS, min_size=2, max_size=4).map(lambda values: "(" + ", ".join(map(str, values)) + ")"),
    st.builds(lambda low, size: f"[{low}, {low + size})", NUMBERS, st.integers(1, 99)),
)


@given(LATEX)
@settings(max_examples=60, deadline=None)
def test_every_answer_equals_itself_in_a_box_and_in_dollars(answer: str) -> None:
    assert math_equal(answer, answer)
    assert math_equal(f"${answer}$", answer)
    assert extract_answer(rf"so \boxed{{{answer}}}") == answer


@given(NUMBERS, NUMBERS)
def test_integers_are_equal_just_when_they_are(left: int, right: int) -> None:
    assert math_equal(str(left), str(right)) == (left == right)


@given(NUMBERS, st.integers(1, 999))
def test_exact_numbers_have_their_value(top: int, bottom: int) -> None:
    assert exact_number(rf"\frac{{{top}}}{{{bottom}}}") == Fraction(top, bottom)
    assert exact_number(f"{top}/{bottom}") == Fraction(top, bottom)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_an_answer(text: str) -> None:
    assert math_equal(text, "5") in (True, False)
    assert math_equal("5", text) in (True, False)


@pytest.mark.parametrize("expression", HOSTILE)
def test_a_hostile_expression_ends_within_its_limit_and_the_next_one_works(expression: str) -> None:
    math_equal(r"\sqrt{4}+x", "x+2")  # the worker's start is not the expression's fault
    start = time.perf_counter()
    assert not math_equal(expression, "12345678 + y", time_limit_s=1.0)
    assert time.perf_counter() - start < 30
    assert math_equal(r"\sqrt{4}+x", "x+2")


def test_a_comparison_that_runs_out_of_time_is_counted() -> None:
    before = JUDGE.num_killed
    assert not math_equal(r"9^{9^{9^{9}}}", "x + 1", time_limit_s=0.5)
    assert JUDGE.num_killed == before + 1


def test_threads_take_turns() -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda k=k: results.append(math_equal(f"x+{k}", f"{k}+x"))) for k in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert results == [True] * 6


def _compare_in_child(queue: multiprocessing.Queue) -> None:
    queue.put(math_equal("x+1", "1+x"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_daemonic_child_process_compares_too(method: str) -> None:
    math_equal("x+1", "1+x")  # the parent has a worker that a forked child must not use
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_compare_in_child, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=120) is True
    process.join(timeout=60)


def test_a_worker_that_was_killed_is_replaced() -> None:
    assert math_equal("x+1", "1+x")
    assert JUDGE._process is not None
    os.kill(JUDGE._process.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert math_equal("x+2", "2+x")


def traces(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "graded_traces_200.jsonl").read_text().splitlines()]


def test_real_traces_are_accepted_where_their_answers_agree(shared_data: Path) -> None:
    rows = traces(shared_data)
    accepted = sum(math_equal(extract_answer(row["trace"]) or "", row["answer"]) for row in rows)
    assert accepted / len(rows) >= 0.93


def values_differ(predicted: str, answer: str) -> bool:
    """Whether two answers certainly differ, without our rules: their plain characters do, letters and layout aside."""

    def digits(text: str) -> str:
        return "".join(character for character in text if character.isdigit())

    return digits(predicted) != digits(answer)


@pytest.mark.slow
def test_no_answer_of_another_problem_is_accepted_unless_it_has_the_same_digits(shared_data: Path) -> None:
    rows = traces(shared_data)
    own = {(extract_answer(row["trace"]) or "", row["answer"]) for row in rows}
    wrong = [
        (predicted, answer)
        for predicted in sorted({predicted for predicted, _ in own})
        for answer in sorted({answer for _, answer in own})
        if (predicted, answer) not in own and values_differ(predicted, answer) and math_equal(predicted, answer)
    ]
    assert wrong == []


def test_every_published_answer_equals_itself_and_can_be_checked(shared_data: Path) -> None:
    verifier = MathAnswer()
    for name in ("aime24", "aime25", "aime26", "hmmt25", "math500"):
        for line in (shared_data / f"{name}.jsonl").read_text().splitlines():
            answer = json.loads(line)["answer"]
            assert verifier.check_answer(answer) is None, answer
            assert math_equal(extract_answer(rf"Thus \boxed{{{answer}}}") or "", answer), answer


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"verifier\.time_limit_s must be above 0; got 0"):
        MathAnswer(time_limit_s=0)
    with pytest.raises(ValueError, match=r"verifier\.truncated_rollouts must be one of .* got 'maybe'"):
        MathAnswer(truncated_rollouts="maybe")  # type: ignore[arg-type]
    assert MathAnswer().check_answer(" ") == "nothing of it is left to compare with"
