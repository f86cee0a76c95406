"""Real answers: those of the public sets, and 200 pairs of a published and a predicted spelling."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from sgsd_lightning.verifiers import MathAnswer, extract_answer, math_equal

SETS = ["aime24", "aime25", "aime26", "hmmt25", "math500", "math_train_3k"]
NUM_SAMPLED = 150
MAX_REJECTED = 0.05
"""The share of equal pairs that may be judged different."""


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


@pytest.mark.parametrize("name", SETS)
def test_every_published_answer_is_accepted_found_in_a_box_and_equal_to_itself(shared_data: Path, name: str) -> None:
    verifier = MathAnswer()
    for answer in sorted({str(row["answer"]) for row in _rows(shared_data, name)}):
        assert verifier.check_answer(answer) is None
        found = extract_answer(rf"Not \boxed{{17}}, so the answer is $\boxed{{{answer}}}$.")
        assert found is not None
        assert math_equal(found, answer), answer
        assert math_equal(f"$ {answer} $.", answer), answer


def test_at_least_187_of_200_real_pairs_are_equal(shared_data: Path) -> None:
    rows = _rows(shared_data, "graded_traces_200")
    accepted = [math_equal(extract_answer(row["trace"]) or "", row["answer"]) for row in rows]
    assert len(rows) == 200
    assert sum(accepted) >= 187


def test_publicly_reported_pairs_have_no_false_accept_and_few_false_rejects(shared_data: Path) -> None:
    rows = [
        json.loads(line) for line in (shared_data / "verifier_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    equal, different = [[row for row in rows if row["equal"] is is_equal] for is_equal in (True, False)]
    assert len(equal) > 50
    assert len(different) > 30
    assert not [row for row in different if math_equal(row["predicted"], row["answer"])]
    rejected = [row for row in equal if not math_equal(row["predicted"], row["answer"])]
    assert len(rejected) <= MAX_REJECTED * len(equal), rejected


def test_no_sampled_answer_of_another_row_is_accepted(shared_data: Path) -> None:
    pairs = _foreign_pairs(shared_data)
    assert not [pair for pair in random.Random(0).sample(pairs, NUM_SAMPLED) if math_equal(*pair)]


@pytest.mark.slow
def test_no_answer_of_another_row_is_accepted(shared_data: Path) -> None:
    assert not [pair for pair in _foreign_pairs(shared_data) if math_equal(*pair)]


def _foreign_pairs(shared_data: Path) -> list[tuple[str, str]]:
    """A prediction with the published answer of a row whose value differs; no verifier code decides which do."""
    rows = _rows(shared_data, "graded_traces_200")
    return sorted(
        {
            (row["predicted"], other["answer"])
            for row in rows
            for other in rows
            if _key(other["answer"]) not in (_key(row["answer"]), _key(row["predicted"]))
        }
    )


def _key(text: str) -> object:
    """Equal for equal numbers, whatever their unit and the name before them; else the text without spaces."""
    text = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\mathrm\{~\}|\^\\circ|[°%]|\bk?cm?\b[²\d^]*|\$|\\[()]|\s", "", text).replace(r"\dfrac", r"\frac")
    value = re.sub(r"^\\?[a-zA-Z](_\w)?=", "", text)
    fraction = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", value)
    if fraction:
        value = f"{fraction[1]}{fraction[2]}/{fraction[3]}"
    try:
        return Fraction(value)
    except ValueError:
        return text
