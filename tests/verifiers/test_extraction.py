"""Where a completion says its answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.verifiers import extract_answer

BALANCED = st.recursive(
    st.text(alphabet="abc0123456789+-*/^_, ", min_size=1, max_size=6),
    lambda inner: st.builds(lambda left, middle: f"{left}{{{middle}}}", inner, inner),
    max_leaves=8,
).filter(lambda text: text.strip() == text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"first \boxed{1}, then \boxed{\frac{1}{\sqrt{2}}} done", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5.", "5"),
        (r"\boxed{3} and then \boxed{unclosed", "3"),
        ("<answer> [1, 2) </answer>", "[1, 2)"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        ("Answer: 42", "42"),
        ("**Final Answer:** 3/4.", "3/4"),
        ("The answer is $x = 2$.", "$x = 2$"),
        ("answer: 1\nmore\nAnswer: 2", "2"),
        (r"<answer>1</answer> but \boxed{2}", "2"),
        ("Answer: 3\n<answer>4</answer>", "4"),
    ],
)
def test_the_last_answer_is_found(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text", ["", "no answer here", r"\boxed{}", r"\boxed{never closed", "<answer>open", "answering: 5"]
)
def test_where_there_is_no_answer_there_is_none(text: str) -> None:
    assert extract_answer(text) is None


@given(BALANCED, st.text(alphabet="xyz {}\\ \n", max_size=12))
def test_what_was_boxed_last_is_found_whatever_stands_before(answer: str, before: str) -> None:
    before = before.replace("\\", "")
    assert extract_answer(f"{before} \\boxed{{{answer}}} end.") == answer


@pytest.mark.parametrize(
    "text", ["{" * 200_000, r"\boxed{" * 60_000, "<answer>" * 60_000, "Answer:" * 60_000, "answer " * 60_000 + "\n" * 9]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    start = time.perf_counter()
    extract_answer(text)
    assert time.perf_counter() - start < 5, "a quadratic scan of this text takes minutes"
