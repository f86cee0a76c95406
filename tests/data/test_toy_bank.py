"""The toy bank keeps the schema of every bank, and its pairs say one thing each."""

from __future__ import annotations

from collections import Counter

from sgsd_lightning.data.toy.bank import load_toy_bank, toy_bank_path
from sgsd_lightning.data.toy.prompts import PAIR_TEMPLATE

SKILL_FIELDS = ("title", "principle", "when_to_apply")
MISTAKE_FIELDS = ("description", "why_it_happens", "how_to_avoid")


def test_the_bank_has_the_schema_of_every_bank() -> None:
    bank = load_toy_bank()
    assert toy_bank_path().is_file()
    assert set(bank) == {"general_skills", "common_mistakes", "task_specific_skills", "metadata"}
    for skill in bank["general_skills"]:
        assert all(skill[field].strip() for field in ("skill_id", *SKILL_FIELDS))
    for mistake in bank["common_mistakes"]:
        assert all(mistake[field].strip() for field in ("mistake_id", *MISTAKE_FIELDS))
    assert [s["skill_id"] for s in bank["general_skills"]] == [f"gen_{n:03}" for n in range(1, 9)]
    assert [m["mistake_id"] for m in bank["common_mistakes"]] == [f"err_{n:03}" for n in range(1, 9)]


def test_a_skill_and_the_mistake_of_its_rank_agree() -> None:
    bank = load_toy_bank()
    for skill, mistake in zip(bank["general_skills"], bank["common_mistakes"], strict=True):
        assert (skill["toy_truth"], skill["toy_subject"]) == (mistake["toy_truth"], mistake["toy_subject"])


def test_every_kind_of_guidance_occurs_more_than_once() -> None:
    counts = Counter(skill["toy_truth"] for skill in load_toy_bank()["general_skills"])
    assert set(counts) == {"helpful", "irrelevant", "misleading"}
    assert min(counts.values()) >= 2


def test_the_texts_of_two_pairs_differ_and_do_not_name_their_truth() -> None:
    bank = load_toy_bank()
    texts = [
        PAIR_TEMPLATE.format_map({**skill, **mistake})
        for skill, mistake in zip(bank["general_skills"], bank["common_mistakes"], strict=True)
    ]
    assert len(set(texts)) == len(texts)
    assert not any(truth in text.lower() for text in texts for truth in ("helpful", "irrelevant", "misleading"))
