"""What language models say, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.skills import Mistake, Skill
from sgsd_lightning.skills.growth.answer_parsing import parse_extraction, parse_merge

SKILL = {"title": "Count twice", "principle": "Count in two ways, and compare.", "when_to_apply": "A set is counted."}
ANSWER = json.dumps({"skills": [SKILL]})
SOURCES = ("m1",)


def reasons(parsed: Any) -> list[str]:
    return [reject.reason for reject in parsed[1]]


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        f"Here you are:\n```json\n{ANSWER}\n```\nI hope this helps [really] {{so much}}.",
        f"```\n{ANSWER}\n```",
        f'<think>Is it {{"skills": []}}? No.</think>\n{ANSWER}',
        f"perhaps [] first</think>{ANSWER}",
        f"Sure! {ANSWER} Is there anything else?",
        f"It is \\boxed{{7}} for {{1, 2}} and [0, 1].\n{ANSWER}",
        ANSWER.replace("}]", "},]"),
        ANSWER.replace('"', "'").replace("'Count in two ways, and compare.'", '"Count in two ways, and compare."'),
        json.dumps([SKILL]),
        json.dumps(SKILL),
        json.dumps({"skills": SKILL}),
        json.dumps({"general_skills": [SKILL]}),
        json.dumps({"skills": [{**SKILL, "confidence": 0.9, "id": 1}]}),
        json.dumps({"skills": [{key: f"  {value}\n" for key, value in SKILL.items()}]}),
        ANSWER.replace("{", "{ // a comment\n", 1),
    ],
)
def test_one_skill_is_found_however_it_is_wrapped(text: str) -> None:
    drafts, rejects = parse_extraction(text, Skill, SOURCES)
    assert [(draft.kind, dict(draft.texts), draft.sources) for draft in drafts] == [(Skill, SKILL, SOURCES)]
    assert not rejects


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot help with that.", "no JSON"),
        ("", "no JSON"),
        ("<think>Let me see { what", "ends while thinking"),
        ('{"answer": 7}', "no list 'skills'"),
        ('{"skills": ["be careful"]}', "must be a JSON object; got str"),
        (json.dumps({"skills": [{**SKILL, "title": " "}]}), "'title' must be a non-empty text"),
        (json.dumps({"skills": [{**SKILL, "principle": 7}]}), "'principle' must be a non-empty text; got 7"),
        (json.dumps({"skills": [{"title": "a", "principle": "b"}]}), "'when_to_apply' must be a non-empty text"),
        (json.dumps({"skills": [{**SKILL, "principle": "long " * 300}]}), "1500 characters"),
        (json.dumps({"mistakes": [SKILL]}), "no list 'skills'"),
    ],
)
def test_what_cannot_be_used_is_a_reject_with_the_reason(text: str, reason: str) -> None:
    parsed = parse_extraction(text, Skill, SOURCES)
    assert not parsed[0]
    assert len(parsed[1]) == 1
    assert reason in parsed[1][0].reason
    assert parsed[1][0].sources == SOURCES


def test_an_empty_list_is_an_answer_without_items() -> None:
    assert parse_extraction('{"skills": []}', Skill, SOURCES) == ((), ())


@pytest.mark.parametrize("cut", range(8, len(json.dumps({"skills": [SKILL, {**SKILL, "title": "Other"}]})) - 1))
def test_an_answer_that_is_cut_off_yields_no_half_sentence(cut: int) -> None:
    whole = json.dumps({"skills": [SKILL, {**SKILL, "title": "Other"}]})
    drafts, _ = parse_extraction(whole[:cut], Skill, SOURCES)
    assert all(draft.texts in (SKILL, {**SKILL, "title": "Other"}) for draft in drafts)


def test_the_good_ones_of_a_cut_answer_stay() -> None:
    text = json.dumps({"skills": [SKILL, {**SKILL, "title": "Other"}]})
    parsed = parse_extraction(text[:-30], Skill, SOURCES)
    assert [draft.texts["title"] for draft in parsed[0]] == ["Count twice"]
    assert reasons(parsed) == ["the answer was cut off within this item"]


def test_no_more_than_three_come_from_one_memory() -> None:
    text = json.dumps({"skills": [{**SKILL, "title": f"skill {n}"} for n in range(5)]})
    parsed = parse_extraction(text, Skill, SOURCES)
    assert [draft.texts["title"] for draft in parsed[0]] == ["skill 0", "skill 1", "skill 2"]
    assert reasons(parsed) == ["more than 3 items from one memory"] * 2


@given(st.text())
def test_any_text_is_drafts_or_rejects_and_never_an_error(text: str) -> None:
    drafts, rejects = parse_extraction(text, Mistake, SOURCES)
    assert all(value.strip() for draft in drafts for value in draft.texts.values())
    assert all(reject.reason for reject in rejects)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["skills", "title", "principle", "when_to_apply", "sources"]), inner)
        ),
    )
)
def test_any_json_is_drafts_or_rejects_and_never_an_error(value: Any) -> None:
    for parsed in (parse_extraction(json.dumps(value), Skill, SOURCES), parse_merge(json.dumps(value), Skill, ["a"])):
        for draft in parsed[0]:
            assert set(draft.texts) == set(SKILL)


def merged(*sources: Any) -> str:
    return json.dumps({"skills": [{**SKILL, "sources": named} for named in sources]})


def test_a_merge_names_what_it_stands_for() -> None:
    drafts, rejects = parse_merge(merged(["a", "b", "a"], ["c"]), Skill, ["a", "b", "c"])
    assert [draft.sources for draft in drafts] == [("a", "b"), ("c",)]
    assert not rejects


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ([["a", "z"]], "names 'z', which was not shown"),
        ([[]], "must list ids"),
        (["a"], "must list ids"),
        ([[1]], "must list ids"),
        ([None], "must list ids"),
        ([["a"], ["b", "a"]], "a stand in an earlier draft"),
    ],
)
def test_a_merge_that_names_other_things_is_a_reject(sources: list[Any], reason: str) -> None:
    parsed = parse_merge(merged(*sources), Skill, ["a", "b"])
    assert reason in reasons(parsed)[-1]
    assert len(parsed[0]) == len(sources) - 1
