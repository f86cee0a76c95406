"""The covering sets: complete, small, the same each time; and the decorator that marks the rest as slow."""

from __future__ import annotations

import itertools

import pytest

from tests.support.pairwise import Apart, grid, pairwise_rows


@pytest.mark.parametrize("sizes", [(3, 3, 3), (4, 4, 4, 2), (5, 1, 2, 3, 4), (2, 2, 2, 2, 2, 2), (6, 4, 4)])
def test_every_two_levels_meet_and_few_rows_suffice(sizes: tuple[int, ...]) -> None:
    rows = pairwise_rows(sizes)
    for first, second in itertools.combinations(range(len(sizes)), 2):
        met = {(row[first], row[second]) for row in rows}
        assert met == set(itertools.product(range(sizes[first]), range(sizes[second])))
    largest, next_largest = sorted(sizes)[-1], sorted(sizes)[-2]
    assert largest * next_largest <= len(rows) <= 2 * largest * next_largest
    assert len(set(rows)) == len(rows)
    assert rows == pairwise_rows(sizes)


def test_two_levels_do_not_meet_in_a_case_that_says_nothing_of_them() -> None:
    rows = pairwise_rows((3, 4, 3), apart=[(0, 0), (2, 1)])
    assert {row[1:] for row in rows if row[0] != 0} >= set(itertools.product(range(4), (0, 2)))
    assert {row[:2] for row in rows if row[2] != 1} >= set(itertools.product((1, 2), range(4)))
    assert {row[1] for row in rows if row[0] == 0} == set(range(4))
    assert {row[0] for row in rows if row[2] == 1} == set(range(3))


@pytest.mark.parametrize("sizes", [(3,), (3, 4)])
def test_one_or_two_factors_are_the_product(sizes: tuple[int, ...]) -> None:
    assert pairwise_rows(sizes) == list(itertools.product(*map(range, sizes)))


@pytest.mark.parametrize("sizes", [(), (3, 0)])
def test_nothing_to_vary_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one level each"):
        pairwise_rows(sizes)


def test_a_grid_is_the_product_of_which_all_but_the_covering_rows_are_slow() -> None:
    mark = grid(
        {"size, width": [(1, 2), (3, 4)], "kind": [Apart("a"), "b"], "passes": [pytest.param(5, id="five"), {"x": 6}]}
    )
    names, cases = mark.mark.args
    assert names == ["size", "width", "kind", "passes"]
    assert [case.values for case in cases] == [
        (*size, kind, passes) for size in [(1, 2), (3, 4)] for kind in "ab" for passes in (5, {"x": 6})
    ]
    assert [case.id for case in cases[:2]] == ["1x2-a-five", "1x2-a-1"]
    normal = [case.values for case in cases if not case.marks]
    slow = [case for case in cases if case.marks]
    assert len(normal) == len(pairwise_rows((2, 2, 2), apart=[(1, 0)])) == 6
    assert {mark.name for case in slow for mark in case.marks} == {"slow"}
