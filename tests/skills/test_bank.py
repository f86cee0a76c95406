"""The bank: the authors' schema, exact round trips, clear complaints, writes that cannot be torn."""

from __future__ import annotations

import itertools
import json
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.skills import Skill, SkillBank, is_dynamic
from tests.support.forked import forkserver

SKILL = {"skill_id": "gen_001", "title": "T", "principle": "P", "when_to_apply": "W"}
MISTAKE = {"mistake_id": "err_001", "description": "D", "why_it_happens": "Y", "how_to_avoid": "H"}
WORDS = st.text(min_size=1).filter(lambda text: text.strip() != "")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.dictionaries(st.text().map(lambda key: f"x_{key}"), JSON, max_size=3)


def make_bank(**changes: object) -> str:
    return json.dumps({"general_skills": [SKILL], "common_mistakes": [MISTAKE], **changes})


@pytest.mark.parametrize(
    ("name", "num_skills", "num_mistakes"),
    [
        ("skill_bank_qwen3_1b", 28, 98),
        ("skill_bank_qwen3_4b", 24, 15),
        ("skill_bank_qwen3_8b", 46, 8),
        ("raw_skill_candidates_qwen3_4b", 505, 41),
    ],
)
def test_a_released_bank_loads_and_comes_back_as_it_was(
    shared_data: Path, tmp_path: Path, name: str, num_skills: int, num_mistakes: int
) -> None:
    bank = SkillBank.load(shared_data / f"{name}.json")
    assert (len(bank.general_skills), len(bank.common_mistakes)) == (num_skills, num_mistakes)
    bank.save(tmp_path / "bank.json")
    original = json.loads((shared_data / f"{name}.json").read_text())
    saved = json.loads((tmp_path / "bank.json").read_text())
    assert saved == original
    assert [list(item) for item in saved["general_skills"]] == [list(item) for item in original["general_skills"]]


@given(WORDS, WORDS, EXTRA, EXTRA, EXTRA)
def test_unknown_keys_and_any_text_survive_a_round_trip(
    title: str, reason: str, skill_extra: dict, mistake_extra: dict, bank_extra: dict
) -> None:
    content = {
        "general_skills": [{**SKILL, "title": title, **skill_extra}],
        "task_specific_skills": {"algebra": [skill_extra]},
        "common_mistakes": [{**MISTAKE, "why_it_happens": reason, **mistake_extra}],
        "metadata": bank_extra,
        **bank_extra,
    }
    bank = SkillBank.from_json(json.dumps(content))
    assert json.loads(bank.to_json()) == content
    assert SkillBank.from_json(bank.to_json()) == bank


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"bank: not JSON \(.* at line 1, column 2\)"),
        ("[]", "bank: a skill bank must be a JSON object; got list"),
        (make_bank(general_skills={}), "bank: general_skills must be a list; got dict"),
        (make_bank(metadata=[]), "bank: metadata must be an object; got list"),
        (make_bank(general_skills=["x"]), r"bank: general_skills\[0\] must be an object; got str"),
        (
            make_bank(general_skills=[{**SKILL, "title": " "}]),
            r"general_skills\[0\] \(gen_001\): the field 'title' must be a non-empty text; got ' '",
        ),
        (
            make_bank(common_mistakes=[MISTAKE, {"mistake_id": "err_7", "description": "D"}]),
            r"common_mistakes\[1\] \(err_7\): the field 'why_it_happens' is missing; a mistake has mistake_id, ",
        ),
        (make_bank(general_skills=[SKILL, SKILL]), "the id 'gen_001' occurs twice"),
        (
            make_bank(general_skills=[{**SKILL, "principle": 3}]),
            "the field 'principle' must be a non-empty text; got 3",
        ),
    ],
)
def test_a_malformed_bank_is_refused_with_item_and_field(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SkillBank.from_json(text, where="bank")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"skill bank .*nowhere\.json does not exist"):
        SkillBank.load(tmp_path / "nowhere.json")


def test_a_failed_write_leaves_the_old_bank_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bank.json"
    bank = SkillBank.from_json(make_bank())
    bank.save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        SkillBank.from_json(make_bank(metadata={"round": 2})).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_hash_follows_the_content() -> None:
    bank = SkillBank.from_json(make_bank())
    assert bank.content_hash == SkillBank.from_json(make_bank()).content_hash
    assert bank.content_hash != SkillBank.from_json(make_bank(metadata={"a": 1})).content_hash


def test_dynamic_items_are_told_by_their_id() -> None:
    assert is_dynamic("dyn_004")
    assert not is_dynamic("gen_004")


def write_for_ever(path: Path, begun: Connection) -> None:
    """Save a bank of 200 long skills again and again."""
    begun.send(True)
    for n in itertools.count(1):
        texts = {"title": f"{n}", "principle": "p" * 2000, "when_to_apply": "w"}
        skills = tuple(Skill(skill_id=f"gen_{i}", **texts) for i in range(200))
        SkillBank(general_skills=skills, common_mistakes=()).save(path)


def test_a_writer_that_is_killed_at_any_moment_leaves_a_bank_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "bank.json"
    path.write_text(json.dumps({"general_skills": [], "common_mistakes": []}))
    context = forkserver()
    seen = set()
    for attempt in range(6):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=write_for_ever, args=(path, sending))
        process.start()
        assert receiving.poll(60)
        time.sleep(0.05 + 0.037 * attempt)
        process.kill()
        process.join()
        seen.add(len(SkillBank.load(path).general_skills))
    assert seen == {200}
