"""Arithmetic problems modulo 10 whose conventions can be read in more than one way.

An expression such as ``3 + 4 * 2 - 1`` has a value only once two conventions are fixed: which operator comes first, and
what a minus does below zero. The truth is the first member of each enum; the base model was taught all four readings.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sgsd_lightning.types import Problem

OPERATORS = ("+", "-", "*")
SPLITS = ("train", "validation", "test")
OPERATOR_COUNTS = (2, 2, 2, 3, 3, 4)
"""An expression's number of operators is drawn from these: long ones are rarer."""


class Precedence(StrEnum):
    """Which operator is reduced first."""

    MULTIPLICATION_FIRST = "multiplication_first"
    LEFT_TO_RIGHT = "left_to_right"


class Minus(StrEnum):
    """What ``a - b`` is when b exceeds a."""

    WRAP = "wrap"
    """(a - b) mod 10: ``3 - 5`` is 8."""
    ABSOLUTE = "absolute"
    """|a - b|: ``3 - 5`` is 2."""


@dataclass(frozen=True, slots=True)
class Convention:
    """One reading of an expression."""

    precedence: Precedence = Precedence.MULTIPLICATION_FIRST
    minus: Minus = Minus.WRAP


TRUTH = Convention()
ALL_CONVENTIONS = tuple(Convention(*pair) for pair in itertools.product(Precedence, Minus))


def solve(expression: str, convention: Convention = TRUTH) -> tuple[tuple[str, ...], int]:
    """Reduce one operator at a time.

    Args:
        expression: Digits and operators separated by single spaces, such as ``"3 + 4 * 2"``.
        convention: How to read it.

    Returns:
        The reductions (``("4 * 2 = 8", "3 + 8 = 1")``; the last one gives the answer) and the answer, 0 to 9.

    Raises:
        ValueError: The expression is not digits joined by ``+``, ``-`` and ``*``.
    """
    terms = _parse(expression)
    steps = []
    while len(terms) > 1:
        position = _next_operator(terms, convention.precedence)
        left, operator, right = terms[position - 1 : position + 2]
        value = _apply(operator, int(left), int(right), convention.minus)
        steps.append(f"{left} {operator} {right} = {value}")
        terms = [*terms[: position - 1], str(value), *terms[position + 2 :]]
    return tuple(steps), int(terms[0])


def trace(expression: str, convention: Convention = TRUTH) -> str:
    """The completion that follows ``convention``: one reduction a line, then the boxed answer."""
    steps, answer = solve(expression, convention)
    return "\n".join((*steps, f"\\boxed{{{answer}}}"))


def split_of(expression: str) -> str:
    """The only split that may hold this expression: 8 in 10 train, 1 validation, 1 test, by its hash."""
    bucket = hashlib.sha256(expression.encode()).digest()[0] % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def is_ambiguous(expression: str) -> bool:
    """Whether the order of operations changes the answer, so that knowing the convention matters."""
    return solve(expression)[1] != solve(expression, Convention(precedence=Precedence.LEFT_TO_RIGHT))[1]


def expressions(split: str, generator: random.Random) -> Iterator[str]:
    """An endless stream of the split's expressions, ambiguous or not, repeats included.

    Each has 2 to 4 operators, of which exactly one is a product and not the first: the one whose turn is in question.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    while True:
        operators = [generator.choice("+-") for _ in range(generator.choice(OPERATOR_COUNTS))]
        operators[generator.randrange(1, len(operators))] = "*"
        terms = [str(generator.randrange(10))]
        for operator in operators:
            terms += [operator, str(generator.randrange(10))]
        expression = " ".join(terms)
        if split_of(expression) == split:
            yield expression


def toy_problems(split: str, num: int, seed: int = 0) -> list[Problem]:
    """``num`` different ambiguous problems of a split, the same ones for the same seed.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``; no expression is in two of them, whatever the seeds.
        num: How many.
        seed: Which ones.

    Raises:
        ValueError: An unknown split, or ``num`` outside 1 to 10,000.
    """
    if not 1 <= num <= 10_000:
        raise ValueError(f"num must lie in 1 to 10000 toy problems; got {num}")
    chosen: dict[str, None] = {}
    for expression in expressions(split, random.Random(f"{split}/{seed}")):
        if is_ambiguous(expression):
            chosen[expression] = None
        if len(chosen) == num:
            break
    return [_problem(split, expression) for expression in chosen]


def _problem(split: str, expression: str) -> Problem:
    answers = {f"{c.precedence}/{c.minus}": solve(expression, c)[1] for c in ALL_CONVENTIONS}
    return Problem(
        problem_id=f"toy/{split}/{expression.replace(' ', '')}",
        text=expression,
        answer=str(solve(expression)[1]),
        solution=trace(expression),
        metadata={"split": split, "answers": answers},
    )


def _parse(expression: str) -> list[str]:
    terms = expression.split(" ")
    digits, operators = terms[::2], terms[1::2]
    if len(digits) != len(operators) + 1 or not (
        all(len(d) == 1 and d in "0123456789" for d in digits) and all(o in OPERATORS for o in operators)
    ):
        raise ValueError(f"expression must be digits joined by ' + ', ' - ' or ' * '; got {expression!r}")
    return terms


def _next_operator(terms: list[str], precedence: Precedence) -> int:
    if precedence is Precedence.MULTIPLICATION_FIRST and "*" in terms:
        return terms.index("*")
    return 1


def _apply(operator: str, left: int, right: int, minus: Minus) -> int:
    if operator == "*":
        return left * right % 10
    if operator == "+":
        return (left + right) % 10
    return abs(left - right) if minus is Minus.ABSOLUTE else (left - right) % 10
