"""The toy bank keeps the schema of every bank, and its pairs say one thing each."""

from __future__ import annotations

from collections import Counter

import pytest

from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.toy.bank import load_toy_bank, toy_bank_path
from sgsd_lightning.toy.problems import toy_problems
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE

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


def test_retrieval_by_words_gives_every_problem_the_eight_pairs_that_agree() -> None:
    contexts = SkillPairs(str(toy_bank_path()), num_contexts=8, template=PAIR_TEMPLATE)
    expected = [(f"gen_{n:03}", f"err_{n:03}") for n in range(1, 9)]
    for built in contexts.build(toy_problems("train", 50)):
        assert [context.source_ids for context in built] == expected
        assert sum(context.weight for context in built) == pytest.approx(1)


def test_the_pair_template_shows_what_the_base_model_was_trained_on() -> None:
    bank = load_toy_bank()
    shown = SkillPairs(str(toy_bank_path()), num_contexts=1, template=PAIR_TEMPLATE).build(toy_problems("test", 1))
    assert shown[0][0].text == PAIR_TEMPLATE.format_map({**bank["general_skills"][0], **bank["common_mistakes"][0]})
