"""The banks that the SGSD authors released: through our schema and back, not a character is different."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgsd_lightning.skills.bank import SkillBank

NAMES = ("skill_bank_qwen3_1b", "skill_bank_qwen3_4b", "skill_bank_qwen3_8b")


def ordered(text: str) -> object:
    """JSON with objects as lists of pairs, so that the order of keys counts."""
    return json.loads(text, object_pairs_hook=list)


@pytest.mark.parametrize("name", NAMES)
def test_a_released_bank_comes_back_to_the_last_character(shared_data: Path, name: str) -> None:
    text = (shared_data / f"{name}.json").read_text(encoding="utf-8")
    written = SkillBank.from_json(text).to_json()
    assert ordered(written) == ordered(text)
    assert written.rstrip() == text.rstrip()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_released_bank_does_not_know_stays_where_it_was_put(shared_data: Path, name: str) -> None:
    content = json.loads((shared_data / f"{name}.json").read_text(encoding="utf-8"))
    content["general_skills"][3]["seen_in"] = ["algebra", {"level": 2}]
    content["metadata"]["reviewed"] = None
    content["licence"] = "ours"
    text = json.dumps(content, indent=2, ensure_ascii=False)
    assert SkillBank.from_json(text).to_json().rstrip() == text
