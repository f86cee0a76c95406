"""What is wrong with a bank file, all of it; and what changed between two."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.skills.diff import FieldChange, diff
from sgsd_lightning.skills.inspection import BankProblem, find_problems
from sgsd_lightning.skills.similarity import LexicalSimilarity
from tests.skills.bank_items import mistake, skill

SKILL = {"skill_id": "gen_001", "title": "Count pairs", "principle": "List them", "when_to_apply": "Small numbers"}
MISTAKE = {"mistake_id": "err_001", "description": "Sign lost", "why_it_happens": "Haste", "how_to_avoid": "Check"}


def found(path: Path, content: Any) -> list[BankProblem]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return find_problems(path)


def test_a_sound_bank_has_no_problem(tmp_path: Path) -> None:
    assert found(tmp_path / "bank.json", {"general_skills": [SKILL], "common_mistakes": [MISTAKE]}) == []


@pytest.mark.parametrize(
    "text",
    [
        "a<|im_end|>b",
        "<s>",
        "x [INST]",
        "<think>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<end_of_turn>",
        "<<SYS>>",
    ],
)
def test_control_tokens_of_well_known_models_are_found(tmp_path: Path, text: str) -> None:
    (problem,) = found(
        tmp_path / "bank.json", {"general_skills": [{**SKILL, "title": text}], "common_mistakes": [MISTAKE]}
    )
    assert (problem.severity, problem.field) == ("warning", "title")
    assert "control tokens" in problem.message


@pytest.mark.parametrize("text", ["x < |y| > z", "a<b>c", "$|x|<|y|$ and |x|>1", "[1, 2]", "<i>"])
def test_mathematics_is_no_control_token(tmp_path: Path, text: str) -> None:
    content = {"general_skills": [{**SKILL, "title": text}], "common_mistakes": [MISTAKE]}
    assert found(tmp_path / "bank.json", content) == []


def test_everything_is_found_at_once_with_item_and_field(tmp_path: Path) -> None:
    content = {
        "general_skills": [
            SKILL,
            {**SKILL, "principle": 3, "title": " "},
            "not an item",
            {"title": "T", "principle": "x" * 1001, "when_to_apply": "W", "colour": "red"},
        ],
        "common_mistakes": [],
        "metadata": [],
        "licence": "ours",
    }
    assert [str(problem) for problem in found(tmp_path / "bank.json", content)] == [
        "error: general_skills[2]: must be an object; got str",
        "error: metadata: must be an object; got list",
        "error: general_skills[1] (gen_001) title: must be a non-empty text; got ' '",
        "error: general_skills[1] (gen_001) principle: must be a non-empty text; got 3",
        "error: general_skills[3] skill_id: is missing; a skill must have it",
        "error: general_skills[1] (gen_001) skill_id: the id 'gen_001' stands at general_skills[0] already; "
        "ids must be unique",
        "warning: common_mistakes: holds no mistake, so no pair can be made",
        "warning: general_skills[3] principle: has 1001 characters, more than 1000; every prompt that shows it grows",
        "note: licence: an unknown key, which is kept",
        "note: general_skills[3] colour: an unknown key, which is kept",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "error: not JSON ("),
        ("[]", "error: a skill bank must be a JSON object; got list"),
        ({"general_skills": {}, "common_mistakes": [MISTAKE]}, "error: general_skills: must be a list; got dict"),
        (
            {"general_skills": [{**SKILL, "skill_id": []}]},
            "error: general_skills[0] skill_id: must be a non-empty text",
        ),
    ],
)
def test_errors_are_exactly_what_keeps_a_bank_from_loading(tmp_path: Path, content: Any, message: str) -> None:
    problems = found(tmp_path / "bank.json", content)
    assert problems[0].severity == "error"
    assert str(problems[0]).startswith(message)
    with pytest.raises(ValueError, match="bank"):
        SkillBank.load(tmp_path / "bank.json")


def test_near_duplicates_are_warnings_that_name_the_other(tmp_path: Path) -> None:
    other = {**SKILL, "skill_id": "gen_002", "when_to_apply": "Small counts"}
    problems = found(tmp_path / "bank.json", {"general_skills": [SKILL, other], "common_mistakes": [MISTAKE]})
    assert [(p.severity, p.item_id) for p in problems] == [("warning", "gen_002")]
    assert problems[0].message.startswith("says much the same as gen_001 (similarity 0.")
    assert find_problems(tmp_path / "bank.json", LexicalSimilarity(1.0)) == []


def test_a_file_that_is_no_text_or_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_bytes(b'{"a": "\xff"}')
    assert str(find_problems(tmp_path / "bank.json")[0]).startswith("error: not UTF-8 text (byte 0xff")
    with pytest.raises(FileNotFoundError, match=r"skill bank .* does not exist"):
        find_problems(tmp_path / "nowhere.json")


def test_the_released_banks_have_nothing_but_six_commands_without_their_backslash(shared_data: Path) -> None:
    for size in ("4b", "8b"):
        assert find_problems(shared_data / f"skill_bank_qwen3_{size}.json") == []
    problems = find_problems(shared_data / "skill_bank_qwen3_1b.json")
    assert [(problem.severity, problem.item_id, problem.field) for problem in problems] == [
        ("warning", "err_067", "why_it_happens"),
        *[("warning", "err_068", "why_it_happens")] * 2,
        *[("warning", "err_068", "how_to_avoid")] * 3,
    ]
    assert [problem.message.rpartition("write ")[2] for problem in problems] == [r"\frac"] * 3 + [r"\text"] * 3


def test_damaged_text_is_named_by_item_field_and_what_was_meant(tmp_path: Path) -> None:
    damaged = {**SKILL, "title": "Half \x0crac{1}{2}", "principle": "red \x1b[31m", "when_to_apply": "never\0"}
    problems = found(tmp_path / "bank.json", {"general_skills": [damaged], "common_mistakes": [MISTAKE]})
    assert [str(problem) for problem in problems] == [
        "error: general_skills[0] (gen_001) when_to_apply: holds the character NUL; remove it",
        "warning: general_skills[0] (gen_001) title: LaTeX lost its backslash: '\\x0crac' in 'Half \\x0crac{1}{2}'; "
        "write \\frac",
        "warning: general_skills[0] (gen_001) principle: holds the control character '\\x1b'; remove it",
    ]
    with pytest.raises(ValueError, match=r"bank\.json: 'gen_001', field 'when_to_apply': holds the character NUL"):
        SkillBank.load(tmp_path / "bank.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"general_skills": NaN}', "NaN is no value of JSON; write null, or a text (line 1)"),
        (b'{\n"metadata": {"a": 1, "a": 2}}', "the key 'a' stands twice in the object"),
        ("{}".encode("utf-16"), "UTF-16 text, not UTF-8"),
        (b'{\n"metadata": {"a": "\\ud800"}}', "half of a surrogate pair in metadata.a"),
    ],
)
def test_a_malformed_file_is_one_error_that_loading_raises_too(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bank.json"
    path.write_bytes(content)
    (problem,) = find_problems(path)
    assert str(problem).startswith(f"error: {message}")
    with pytest.raises(ValueError, match=r"bank\.json"):
        SkillBank.load(path)


def test_what_changed_is_found_per_kind_and_field() -> None:
    old = SkillBank(
        general_skills=(skill("gen_001", "a"), skill("gen_002", "b"), skill("gen_003", "c")),
        common_mistakes=(mistake("err_001", "m"),),
        metadata={"step": 1, "by": "hand"},
    )
    new = replace(
        old,
        general_skills=(skill("gen_001", "a"), skill("gen_003", "C", {"sources": ["m1"]}), skill("dyn_001", "d")),
        metadata={"step": 2, "by": "hand"},
        extra={"licence": "ours"},
    )
    changes = diff(old, new)
    assert [item.item_id for item in changes.skills.added] == ["dyn_001"]
    assert [item.item_id for item in changes.skills.removed] == ["gen_002"]
    assert [(change.new.item_id, change.fields) for change in changes.skills.changed] == [
        ("gen_003", (FieldChange(field="title", old="c", new="C"), FieldChange(field="sources", old=None, new=["m1"])))
    ]
    assert not changes.skills.is_reordered
    assert not changes.mistakes
    assert changes.other_keys == (
        FieldChange(field="metadata.step", old=1, new=2),
        FieldChange(field="licence", old=None, new="ours"),
    )
    assert changes
    assert not diff(old, old)


def test_another_order_is_a_change() -> None:
    old = SkillBank(general_skills=(skill("gen_001", "a"), skill("gen_002", "b")), common_mistakes=())
    changes = diff(old, replace(old, general_skills=old.general_skills[::-1]))
    assert changes.skills.is_reordered
    assert (changes.skills.added, changes.skills.removed, changes.skills.changed) == ((), (), ())
