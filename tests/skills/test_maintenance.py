"""One update of a bank while training: what comes in, what goes, and what nothing may touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from scripted_writer import ScriptedWriter, memory

from sgsd_lightning.skills import EvidenceLedger, Mistake, Skill, SkillBank, is_on_probation
from sgsd_lightning.skills.admission import AdmissionSettings
from sgsd_lightning.skills.growth.kind_update import MaintenanceSettings
from sgsd_lightning.skills.growth.maintenance import BankUpdate, choose_memories, maintain
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.skills.provenance import list_sources
from sgsd_lightning.types import Observation

WORDS = ["apples", "bridges", "clouds", "dragons", "engines", "forests", "glaciers", "harbours", "islands", "jungles"]
ADMISSION = AdmissionSettings(min_uses=10, max_uses=100)


def static_bank() -> SkillBank:
    return SkillBank(
        general_skills=tuple(
            Skill(skill_id=f"gen_00{i}", title=f"Static {i}", principle=f"rule {i} {i}", when_to_apply=f"case {i}")
            for i in (1, 2)
        ),
        common_mistakes=tuple(
            Mistake(mistake_id=f"err_00{i}", description=f"fault {i}", why_it_happens=f"haste {i}", how_to_avoid=f"{i}")
            for i in (1, 2)
        ),
        metadata={"source": "somewhere"},
    )


def update(
    bank: SkillBank,
    memories: Sequence[Memory] = (),
    writer: ScriptedWriter | None = None,
    ledger: EvidenceLedger | None = None,
    guard: LeakGuard | None = None,
    step: int = 25,
    **settings: Any,
) -> BankUpdate:
    return maintain(
        bank,
        ledger or EvidenceLedger(),
        memories,
        writer or ScriptedWriter(by_word),
        guard or LeakGuard(),
        MaintenanceSettings(**{"admission": ADMISSION, **settings}),
        step,
        min_items=2,
    )


def by_word(shown: Memory) -> str:
    return f"think of {shown.memory_id.split('-')[0]} and {shown.memory_id.split('-')[0]}ness"


def evidence(**polarities: list[int]) -> EvidenceLedger:
    ledger = EvidenceLedger()
    ledger.observe(
        1,
        [
            Observation(source_ids=(item_id,), outcome=1, polarity=polarity, stance_score=0.1, gated_loss=0.1)
            for item_id, found in polarities.items()
            for polarity in found
        ],
    )
    return ledger


def grown(num: int = 3) -> SkillBank:
    """A bank with ``num`` dynamic skills on probation, dyn_001 and so on."""
    return update(static_bank(), [memory(word) for word in WORDS[:num]]).bank


def test_successes_become_skills_and_failures_mistakes_on_probation() -> None:
    result = update(static_bank(), [memory("apples"), memory("bridges", is_success=False)])
    assert result.bank.general_skills[:2] == static_bank().general_skills
    assert result.bank.common_mistakes[:2] == static_bank().common_mistakes
    (skill,) = result.bank.general_skills[2:]
    (mistake,) = result.bank.common_mistakes[2:]
    assert (skill.item_id, mistake.item_id) == result.added == ("dyn_001", "dyn_002")
    assert skill.title == "think of apples and applesness"
    assert list_sources(mistake) == ("bridges",)
    assert is_on_probation(skill)
    assert skill.extra["since_step"] == 25
    assert result.bank.metadata["source"] == "somewhere"


def test_the_most_supported_come_first_and_the_rest_is_turned_away() -> None:
    memories = [memory(f"{word}-{copy}") for copy in range(3) for word in WORDS[copy:4]]
    result = update(static_bank(), memories, max_new=2)
    titles = [skill.title.split()[2] for skill in result.bank.general_skills[2:]]
    assert titles == ["clouds", "dragons"]
    assert len(list_sources(result.bank.general_skills[2])) == 3
    assert [reject.reason for reject in result.rejects] == ["more than 2 new items"] * 2


def test_the_order_of_answers_makes_no_difference() -> None:
    memories = [memory(word, is_success=place % 2 == 0) for place, word in enumerate(WORDS)]
    forwards, backwards = (
        update(static_bank(), memories, ScriptedWriter(by_word, backwards=order)) for order in (False, True)
    )
    assert forwards.bank.to_json() == backwards.bank.to_json()


def test_what_the_bank_says_already_does_not_come_again() -> None:
    bank = grown(2)
    result = update(bank, [memory("apples-again"), memory("clouds")])
    assert result.added == ("dyn_003",)
    known = result.bank.general_skills[2]
    assert known.item_id == "dyn_001"
    assert list_sources(known) == ("apples", "apples-again")
    assert [reject.reason for reject in result.rejects] == ["says what dyn_001 says"]


def test_static_items_are_never_touched() -> None:
    bank = replace(static_bank())
    echo = bank.general_skills[0].title
    writer = ScriptedWriter(lambda shown: f"{echo} rule 1 1 case 1")
    ledger = evidence(gen_001=[-1] * 1000, err_002=[-1] * 1000)
    result = update(bank, [memory("one")], writer, ledger)
    assert result.bank.general_skills == bank.general_skills
    assert result.bank.common_mistakes == bank.common_mistakes
    assert not result.dropped


def test_evidence_admits_drops_or_waits() -> None:
    bank = grown(4)
    ledger = evidence(dyn_001=[1] * 20, dyn_002=[-1] * 20, dyn_003=[0] * 20, dyn_004=[1] * 9)
    result = update(bank, ledger=ledger)
    assert result.admitted == ("dyn_001",)
    assert [drop.item_id for drop in result.dropped] == ["dyn_002"]
    assert "misleading: usefulness 0.00" in result.dropped[0].reason
    status = {item.item_id: item.extra.get("status") for item in result.bank.general_skills}
    assert status == {
        "gen_001": None,
        "gen_002": None,
        "dyn_001": "admitted",
        "dyn_003": "probation",
        "dyn_004": "probation",
    }


def test_what_makes_no_difference_for_long_goes_and_what_was_admitted_may_fall() -> None:
    bank = grown(2)
    first = update(bank, ledger=evidence(dyn_001=[1] * 20, dyn_002=[0] * 99))
    assert not first.dropped
    second = update(first.bank, ledger=evidence(dyn_001=[1] * 20 + [-1] * 100, dyn_002=[0] * 100))
    assert {drop.item_id: drop.reason.split(":")[0] for drop in second.dropped} == {
        "dyn_001": "misleading",
        "dyn_002": "makes no difference",
    }


def test_what_evidence_spoke_against_does_not_come_back_and_its_id_is_not_given_again() -> None:
    bank = update(grown(1), ledger=evidence(dyn_001=[-1] * 20)).bank
    assert len(bank.general_skills) == 2
    result = update(bank, [memory("apples-again"), memory("bridges")])
    assert result.added == ("dyn_002",)
    assert [reject.reason for reject in result.rejects] == ["says what dyn_001 said, which was dropped"]


def test_no_update_drops_more_than_it_may_or_leaves_fewer_than_retrieval_asks_for() -> None:
    bank = grown(5)
    bad = evidence(**{f"dyn_00{i}": [-1] * (20 + i) for i in range(1, 6)})
    assert len(update(bank, ledger=bad, max_new=2).dropped) == 2
    only_dynamic = replace(bank, general_skills=bank.general_skills[2:])
    assert len(update(only_dynamic, ledger=bad).bank.general_skills) == 2


def test_over_capacity_the_least_useful_goes_not_the_newest() -> None:
    bank = grown(3)
    ledger = evidence(dyn_001=[1, 0] * 4, dyn_002=[-1, 0] * 4, dyn_003=[0] * 9)
    result = update(bank, [memory("dragons")], ledger=ledger, capacity=3)
    assert [drop.item_id for drop in result.dropped] == ["dyn_002"]
    assert [item.item_id for item in result.bank.general_skills[2:]] == ["dyn_001", "dyn_003", "dyn_004"]


def test_drafts_that_give_something_away_are_rejected_and_counted() -> None:
    texts = {"apples": "the answer is 73", "bridges": "a train leaves the town at noon and arrives at four"}
    guard = LeakGuard(["A train leaves the town at noon and arrives at four. How long did it take?"])
    writer = ScriptedWriter(lambda shown: texts.get(shown.memory_id, "look for symmetry"))
    result = update(static_bank(), [memory(word) for word in WORDS[:3]], writer, guard=guard)
    assert (result.num_drafts, result.num_leaks, len(result.added)) == (3, 2, 1)
    assert any("answer" in reject.reason for reject in result.rejects)
    assert any("evaluation" in reject.reason for reject in result.rejects)


def test_merging_by_the_writer_may_not_bring_an_answer_back() -> None:
    writer = ScriptedWriter(
        by_word, unite=lambda items: [([item.item_id for item in items], "it is always 73")] if len(items) > 1 else []
    )
    result = update(static_bank(), [memory("apples"), memory("bridges")], writer)
    assert [skill.title.split()[2] for skill in result.bank.general_skills[2:]] == ["apples", "bridges"]


def test_where_the_writer_sees_an_item_of_the_bank_in_new_ones_the_item_keeps_its_words() -> None:
    bank = grown(1)
    writer = ScriptedWriter(by_word, unite=lambda items: [([item.item_id for item in items], "all is one")])
    result = update(bank, [memory("bridges")], writer)
    (kept,) = result.bank.general_skills[2:]
    assert (kept.item_id, kept.title) == ("dyn_001", bank.general_skills[2].title)
    assert list_sources(kept) == ("apples", "bridges")
    assert not result.added


def test_the_writer_is_shown_the_newest_of_every_problem_first() -> None:
    memories = [replace(memory(f"{problem}-{n}"), problem_id=problem) for n in range(3) for problem in "ab"]
    memories += [memory("wrong", is_success=False)]
    chosen = [shown.memory_id for shown in choose_memories(memories, 3)]
    assert chosen == ["b-1", "a-2", "b-2", "wrong"]


@pytest.mark.parametrize("name", ["max_new", "capacity", "max_memories"])
def test_settings_out_of_range_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"bank_maintenance.settings.{name} must be at least 1; got 0"):
        MaintenanceSettings(**{name: 0})
