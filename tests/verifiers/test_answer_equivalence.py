"""Which spellings are one answer."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgsd_lightning.verifiers import math_equal
from sgsd_lightning.verifiers.math.process import MATH_PROCESS

EQUAL = [
    ("5", "5.0"),
    ("1,000", "1000"),
    (r"10,\!000", "10000"),
    (r"10\,000", "10{,}000"),
    (".5", r"\frac{1}{2}"),
    ("1e3", "1000"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"2\frac{1}{2}", "5/2"),
    ("2 1/2", "2.5"),
    (r"\dfrac12", r"\frac{1}{2}"),
    (r"\(5\)", "$5$."),
    (r"\text{Evelyn}", "Evelyn"),
    ("Yes.", r"\text{yes}"),
    ("Yes, it is.", "yes"),
    ("x=5", "5"),
    (r"f(x)=x+1", "1+x"),
    (r"a_n = 2n+1", "1+2n"),
    (r"r_b = 5", "5"),
    (r"f(x)=0", r"f(x) = 0 \text{ for all } x \in \mathbb{R}"),
    (r"\angle ABC = 90^\circ", "90"),
    (r"x \in [1,2]", "[1;2]"),
    ("EH:HG=2:3", "2:3"),
    ("24 cm", "24"),
    (r"24\text{ cm}^2", "24 square centimeters"),
    (r"\$5", "5 dollars"),
    ("90°", r"90^\circ"),
    ("50%", "50"),
    (r"50\%", "0.5"),
    (r"18\text{ apples}", "18"),
    ("(B)", "B"),
    ("B. 12", r"\text{(B)}"),
    ("(B) 12", "12"),
    (r"\left(1,2\right)", "(1; 2)"),
    ("√2", r"\sqrt{2}"),
    ("3×4", "12"),
    ("x ≤ 3", r"x\leqslant 3"),
    ("(-∞,1)∪(2,∞)", r"(2,+\infty)\cup(-\infty,1)"),
    ("x<1 or x>2", r"(-\infty,1)\cup(2,\infty)"),
    (r"\frac{1}{2} < a < 1", r"a\in(1/2, 1)"),
    ("x²+1", "1+x^{2}"),
    (r"2\pm\sqrt3", r"2-\sqrt{3}, 2+\sqrt{3}"),
    ("3, 5, and 7", "7,3,5"),
    (r"\{1,2\}", "2, 1"),
    ("(5,3)", "x=5, y=3"),
    ("x=1,y=2", "y=2,x=1"),
    ("y=2x+1", "y-2x=1"),
    ("p-q", "-q+p"),
    (r"5\cdot 7^4", "12005"),
    ("2516_8", "2516_{8}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("A is 30 years old, B is 20 years old.", "x=30,y=20"),
    ("There are exactly 12 ways", "12"),
    ("That is, i.e., $x = 5$.", "5"),
    ("2pi", r"2\pi"),
    ("x**2", "x²"),
    ("sqrt(2)", r"\sqrt2"),
    ("n(n+1)/2", r"\frac{n(n+1)}{2}"),
    (".001", "10^{-3}"),
    (r"0.1\overline{6}", r"\frac16"),
    (r"x = \frac{\pi}{2}+k\pi, k \in \mathbb{Z}", r"\frac{\pi}{2}+k\pi"),
    (r"x \in \mathbb{R}", r"(-\infty,\infty)"),
    (r"x_1=2, x_2=-3", r"x=-3 \text{ or } x = 2"),
    (r"\{(1,2),(3,4)\}", "(3,4),(1,2)"),
]
DIFFERENT = [
    ("5", "-5"),
    ("0.333", "1/3"),
    ("2 1/2", "21/2"),
    ("1, 234", "1234"),
    ("100, 300", "100300"),
    ("1 2", "12"),
    ("2:3", "3"),
    ("5 or 7", "7"),
    ("It is 5 or 7", "7"),
    ("It is not 5", "5"),
    ("x>3", "3"),
    (r"x\ne 2", "2"),
    ("(1,2)", "2"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "(1,2)"),
    ("[1,2)", "(1,2]"),
    (r"\{1,2\}", "(1,2)"),
    ("1,2,3", "1,2"),
    ("1,1,2", "1,2,2"),
    ("x=5", "y=5"),
    ("x=1,y=2", "x=2,y=1"),
    ("f(x)=0", "0"),
    ("n", r"a_i = n \text{ for all } 1 \le i \le n"),
    ("listen", "silent"),
    ("even", "odd"),
    ("yes", "no"),
    ("A", "B"),
    ("(A) 12", "(B) 12"),
    ("R-r", "r-R"),
    ("2R", "2r"),
    ("2m", "2"),
    ("5 cm", "5 m"),
    ("2 hours", "2 minutes"),
    ("5 percent", "5 cm"),
    ("10 million", "10"),
    ("3 dozen", "3"),
    ("5 mod 7", "5"),
    ("12_7", "12_8"),
    (r"\infty", r"-\infty"),
    (r"\emptyset", "0"),
    ("x^2+C", "x^2"),
    (r"2\pm\sqrt3", r"2+\sqrt3"),
    ("x_1", "x_2"),
    ("12 and a half", "12"),
    ("5 (or 7)", "5"),
    (r"\text{not } 5", "5"),
    (r"\pm 5", "5"),
    ("2,5", "2.5"),
    ("2x=4", "4"),
    ("x+y=5", "x-y=5"),
    ("(1,2),(3,4)", "(1,4),(3,2)"),
    ("1000000000000000000", "1000000000000000001"),
    ("2^{64}", "2^{64}-1"),
    (r"All are 1, i.e., \(a_2 = a_3 = \ldots = 1\).", r"f(x) = 1 \text{ for all } x"),
    ("", ""),
    ("", "5"),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_two_spellings_of_one_value_are_equal_both_ways(first: str, second: str) -> None:
    assert math_equal(first, second)
    assert math_equal(second, first)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different_values_differ_both_ways(first: str, second: str) -> None:
    assert not math_equal(first, second)
    assert not math_equal(second, first)


@pytest.mark.parametrize(
    ("predicted", "is_right"),
    [(r"\frac{100a}{100-a}", True), (r"\frac{100a}{100-5}", False), (r"\frac{100}{100-a}", False)],
)
def test_a_published_answer_that_lost_a_letter_is_completed_by_the_prediction(predicted: str, is_right: bool) -> None:
    assert math_equal(predicted, r"\frac{100a}{100-}") is is_right
    assert not math_equal(r"\frac{100a}{100-}", predicted), "a prediction may not leave letters out"


integers = st.integers(-(10**6), 10**6)
fractions = st.tuples(integers, st.integers(1, 999))
elements = integers.map(str) | fractions.map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}")
lists = st.lists(elements, min_size=2, max_size=4)
answers = (
    elements
    | lists.map(lambda parts: f"({', '.join(parts)})")
    | lists.map(lambda parts: rf"\{{{', '.join(parts)}\}}")
    | lists.map(lambda parts: f"[{parts[0]}, {parts[1]})")
)


@given(answers)
def test_an_answer_equals_itself_in_other_wrappers_and_spacing(answer: str) -> None:
    for other in (
        answer,
        f" $ {answer}$. ",
        rf"\({answer.replace(', ', ',')}\)",
        f"x = {answer.replace('frac', 'dfrac')}",
    ):
        assert math_equal(other, answer)
        assert math_equal(answer, other)


@given(integers, integers)
def test_integers_are_equal_only_to_themselves(first: int, second: int) -> None:
    assert math_equal(f"{first:,}", str(second)) is (first == second)


@given(fractions, fractions)
def test_fractions_are_equal_when_their_values_are(first: tuple[int, int], second: tuple[int, int]) -> None:
    spelling = rf"\frac{{{first[0]}}}{{{first[1]}}}"
    assert math_equal(spelling, f"{second[0]}/{second[1]}") is (Fraction(*first) == Fraction(*second))
    assert math_equal(spelling, rf"\dfrac{{{3 * first[0]}}}{{{3 * first[1]}}}")


@given(st.lists(integers, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_tuples_are_ordered_and_sets_are_not(values: list[int], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(values, len(values))
    first, second = (", ".join(map(str, side)) for side in (values, shuffled))
    assert math_equal(f"({first})", f"({second})") is (values == shuffled)
    assert math_equal(rf"\{{{first}\}}", rf"\{{{second}\}}")
    assert math_equal(first.replace(",", ";"), second)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["5", "x+1", "(1, 2)", "No", r"\frac{a}{b}"]))
def test_no_text_raises_and_both_directions_agree(text: str, answer: str) -> None:
    started = time.perf_counter()
    assert math_equal(text, answer, 3.0) == math_equal(answer, text, 3.0)
    assert time.perf_counter() - started < 30


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*"0123456789xyR+-*/^_{}()[],;=<>.!%$\\ ", r"\frac", r"\sqrt", r"\pm", "or", "cm"])))
def test_no_broken_latex_raises(pieces: list[str]) -> None:
    assert math_equal("".join(pieces), "y^2+7", 3.0) in (False, True)


def test_integers_decimals_and_fractions_start_no_process() -> None:
    MATH_PROCESS.close()
    assert math_equal("7", "7")
    assert not math_equal("7", "8")
    assert math_equal("0.25", r"\frac{1}{4}")
    assert math_equal("x = 12 cm", "12")
    assert MATH_PROCESS.worker_pid is None
