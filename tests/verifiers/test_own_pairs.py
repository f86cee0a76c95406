"""Pairs written for this project, by kind: spellings of one value, and values that are easily taken for one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgsd_lightning.verifiers import math_equal

FILES = ["pairs", "pairs_second", "pairs_third", "pairs_held_back"]


def _pairs(name: str) -> list[tuple[str, bool, str, str]]:
    lines = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return [(kind, sign == "=", first, second) for kind, sign, first, second in fields]


KINDS = sorted({pair[0] for name in FILES for pair in _pairs(name)})


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_of_a_kind_is_judged_wrongly(kind: str) -> None:
    wrong = [
        (first, second)
        for name in FILES
        for of_kind, are_equal, first, second in _pairs(name)
        if of_kind == kind and {math_equal(first, second), math_equal(second, first)} != {are_equal}
    ]
    assert not wrong


def test_the_pairs_are_many_and_of_both_signs() -> None:
    pairs = [pair for name in FILES for pair in _pairs(name)]
    assert len({pair[2:] for pair in pairs}) == len(pairs) > 500
    assert sum(not are_equal for _, are_equal, _, _ in pairs) > 150
