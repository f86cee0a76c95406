"""Grids of test cases: every pair of levels in the normal run, the full product under the marker ``slow``.

Most faults of a kernel show with one or two settings together (an odd size, a softcap with a bias), so a small set of
cases in which every two levels meet at least once finds nearly all that the full product finds.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

Row = tuple[int, ...]
"""The index of one level per factor."""


@dataclass(frozen=True)
class Apart:
    """A level whose cases say nothing of how other factors go together: an empty input, or the definition itself.

    Its cases meet every level of the others, but two others that meet in one of them have not met.
    """

    level: Any


def pairwise_rows(sizes: Sequence[int], apart: Collection[tuple[int, int]] = ()) -> list[Row]:
    """Rows of the product of ``range(size)`` in which every two levels of two factors meet; the same at each call.

    Greedy: the next row is the first of the product that has the most pairs which no earlier row has. With one factor
    every level is a row, with two the product is.

    Args:
        sizes: How many levels each factor has, at least 1.
        apart: (factor, level) of the levels that are `Apart`.

    Raises:
        ValueError: no factor, or one without a level.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"a grid needs factors with at least one level each; got sizes {list(sizes)}")
    product = list(itertools.product(*map(range, sizes)))
    if len(sizes) < 3:
        return product
    met = {row: _pairs(row, frozenset(apart)) for row in product}
    missing = set().union(*met.values())
    rows: list[Row] = []
    while missing:
        best = max(product, key=lambda row: len(missing & met[row]))
        missing -= met[best]
        rows.append(best)
    return rows


def grid(factors: Mapping[str, Sequence[Any]]) -> pytest.MarkDecorator:
    """Parametrise a test by the product of ``factors``; all but `pairwise_rows` of it are marked ``slow``.

    Args:
        factors: The levels of each argument of the test. A name with commas, such as ``"num_rows, width"``, is one
            factor of several arguments whose levels are tuples. A level may be a `pytest.param` with an id, or `Apart`.
    """
    names = [name.strip() for factor in factors for name in factor.split(",")]
    apart = [
        (place, index)
        for place, choices in enumerate(factors.values())
        for index, level in enumerate(choices)
        if isinstance(level, Apart)
    ]
    levels = [[_level(level, "," in factor) for level in choices] for factor, choices in factors.items()]
    normal = set(pairwise_rows([len(choices) for choices in levels], apart))
    cases = []
    for row in itertools.product(*(range(len(choices)) for choices in levels)):
        chosen = [choices[index] for choices, index in zip(levels, row, strict=True)]
        cases.append(
            pytest.param(
                *(value for values, _ in chosen for value in values),
                id="-".join(name or str(index) for (_, name), index in zip(chosen, row, strict=True)),
                marks=() if row in normal else pytest.mark.slow,
            )
        )
    return pytest.mark.parametrize(names, cases)


def _pairs(row: Row, apart: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int, int, int]]:
    """(factor, level, factor, level) of every two factors that meet in a row."""
    lonely = apart.intersection(enumerate(row))
    pairs = itertools.combinations(enumerate(row), 2)
    return frozenset((*one, *other) for one, other in pairs if lonely <= {one, other})


def _level(level: Any, is_compound: bool) -> tuple[tuple[Any, ...], str]:
    """The values of a level, and its name in the id of a case; empty where only its index can name it."""
    level = level.level if isinstance(level, Apart) else level
    if isinstance(level, type(pytest.param())):
        return level.values, level.id or ""
    values = tuple(level) if is_compound else (level,)
    return values, "x".join(map(str, values)) if all(isinstance(value, int | float | str) for value in values) else ""
