"""The benchmark of merging: its counts, with no writer and with a scripted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.merge_banks import counts_with, kind_of, needless_answer_rejects
from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.skills.growth.writer import Written
from tests.skills.bank_items import ScriptedWriter, draft_of, mistake, skill

BANK = SkillBank(
    general_skills=(skill("a", "prime divisor sum"), skill("b", "prime divisor case"), skill("c", "coin 12")),
    common_mistakes=(mistake("d", "sign lost"),),
)


def test_duplicates_alone_leave_what_the_threshold_says() -> None:
    assert [counts_with("toy", BANK, threshold).num_skills for threshold in (0.6, 0.9)] == [2, 3]
    left = counts_with("toy", BANK, 0.6)
    assert (left.num_skills_in, left.num_mistakes_in, left.num_mistakes) == (3, 1, 1)


def test_a_writer_goes_through_the_same_function() -> None:
    def all_in_one(items: Sequence[Any]) -> Written:
        return Written(sources=(), drafts=(draft_of(items),))

    assert counts_with("toy", BANK, 0.9, ScriptedWriter(all_in_one)).num_skills == 1


def test_needless_rejects_are_counted_by_kind_of_answer() -> None:
    found = needless_answer_rejects(BANK.general_skills, ["12"])["by_kind"]["integer of 2 digits"]
    assert abs(found["rejected_frac"] - 1 / 3) < 0.02
    assert [kind_of(answer) for answer in ("7", "-12", "1,200", r"\frac{1}{2}", "x+1")] == [
        "integer of 1 digit",
        "integer of 2 digits",
        "integer of 3 or more digits",
        "fraction or decimal",
        "other than a number",
    ]
