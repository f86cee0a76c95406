"""The toy arithmetic against an evaluator that shares nothing with it, and the splits' promises."""

from __future__ import annotations

import ast
import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.toy.problems import (
    ALL_CONVENTIONS,
    SPLITS,
    TRUTH,
    Convention,
    Minus,
    Precedence,
    expressions,
    is_ambiguous,
    solve,
    split_of,
    toy_problems,
    trace,
)

digits = st.sampled_from("0123456789")
toy_expressions = st.builds(
    lambda first, rest: " ".join([first, *itertools.chain(*rest)]),
    digits,
    st.lists(st.tuples(st.sampled_from("+-*"), digits), min_size=1, max_size=4),
)


def evaluate_by_python(expression: str, convention: Convention) -> int:
    """Python's own parser decides the tree; the tree is then folded with the convention's minus."""
    if convention.precedence is Precedence.LEFT_TO_RIGHT:
        first, *rest = re.findall(r"[+*-] \d", "+ " + expression)
        expression = first[2:]
        for term in rest:
            expression = f"({expression}) {term}"
    return _fold(ast.parse(expression, mode="eval").body, convention.minus)


def _fold(node: ast.expr, minus: Minus) -> int:
    if isinstance(node, ast.Constant):
        return int(str(node.value))
    assert isinstance(node, ast.BinOp)
    left, right = _fold(node.left, minus), _fold(node.right, minus)
    if isinstance(node.op, ast.Mult):
        return (left * right) % 10
    if isinstance(node.op, ast.Add):
        return (left + right) % 10
    return (left - right) % 10 if minus is Minus.WRAP else max(left, right) - min(left, right)


@given(toy_expressions)
def test_every_convention_agrees_with_pythons_parser(expression: str) -> None:
    for convention in ALL_CONVENTIONS:
        assert solve(expression, convention)[1] == evaluate_by_python(expression, convention)


@given(toy_expressions)
def test_the_truth_is_ordinary_arithmetic_modulo_ten(expression: str) -> None:
    assert solve(expression)[1] == eval(expression) % 10


def test_the_four_conventions_read_one_expression_differently() -> None:
    answers = {
        (precedence, minus): solve("1 - 4 * 3", Convention(precedence, minus))[1]
        for precedence in Precedence
        for minus in Minus
    }
    assert answers == {
        ("multiplication_first", "wrap"): 9,
        ("multiplication_first", "absolute"): 1,
        ("left_to_right", "wrap"): 1,
        ("left_to_right", "absolute"): 9,
    }


def test_a_trace_shows_one_reduction_a_line_and_boxes_the_answer() -> None:
    assert trace("3 + 4 * 2 - 1") == "4 * 2 = 8\n3 + 8 = 1\n1 - 1 = 0\n\\boxed{0}"
    assert trace("3 + 4 * 2", Convention(Precedence.LEFT_TO_RIGHT)) == "3 + 4 = 7\n7 * 2 = 4\n\\boxed{4}"


@pytest.mark.parametrize("text", ["", "3 +", "3+4", "12 + 3", "3 / 4", "3  + 4", "+ 3 4", "\u0663 + 4"])
def test_a_malformed_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression must be digits joined by"):
        solve(text)


def test_no_expression_is_in_two_splits_whatever_the_seeds() -> None:
    texts = {split: {p.text for seed in (0, 1) for p in toy_problems(split, 300, seed)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not texts[one] & texts[other]
    assert all(split_of(text) == split for split in SPLITS for text in texts[split])


def test_problems_are_distinct_ambiguous_and_repeat_with_their_seed() -> None:
    problems = toy_problems("test", 400, seed=3)
    assert len({p.problem_id for p in problems}) == len({p.text for p in problems}) == 400
    assert problems == toy_problems("test", 400, seed=3)
    assert problems[:50] == toy_problems("test", 50, seed=3)
    assert problems != toy_problems("test", 400, seed=4)
    for problem in problems:
        assert is_ambiguous(problem.text)
        assert problem.answer == str(solve(problem.text, TRUTH)[1])
        assert problem.solution == trace(problem.text)
        assert 2 <= len(re.findall("[+*-]", problem.text)) <= 4


def test_expressions_come_in_every_length() -> None:
    stream = itertools.islice(expressions("train", random.Random(0)), 200)
    assert {len(re.findall("[+*-]", expression)) for expression in stream} == {2, 3, 4}


def test_a_wrong_split_or_count_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of train, validation, test; got 'dev'"):
        toy_problems("dev", 1)
    with pytest.raises(ValueError, match="num must lie in 1 to 10000 toy problems; got 0"):
        toy_problems("train", 0)
