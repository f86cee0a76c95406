"""Which items serve a problem, once evidence has a say and some items are on probation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgsd_lightning.skills import EvidenceLedger, EvidenceSettings, Mistake, Selection, Skill, SkillBank
from sgsd_lightning.skills.retrieval import best
from sgsd_lightning.types import Observation

SIMILARITY = np.array([0.5, 0.4, 0.3, 0.2], dtype=np.float32)


def bank(statuses: list[str | None] = [None] * 4) -> SkillBank:
    skills = [
        Skill(
            skill_id=f"gen_{index}",
            title="t",
            principle="p",
            when_to_apply="w",
            extra={} if status is None else {"status": status},
        )
        for index, status in enumerate(statuses)
    ]
    mistake = Mistake(mistake_id="err_0", description="d", why_it_happens="w", how_to_avoid="h")
    return SkillBank(general_skills=tuple(skills), common_mistakes=(mistake,))


def ledger(**polarities: list[int]) -> EvidenceLedger:
    made = EvidenceLedger()
    made.observe(
        1,
        [
            Observation(source_ids=(item_id,), outcome=1, polarity=polarity, stance_score=0.0, gated_loss=0.0)
            for item_id, found in polarities.items()
            for polarity in found
        ],
    )
    return made


def skills_of(selection: Selection, num: int) -> list[int]:
    return list(selection.rank(SIMILARITY, SIMILARITY[:1], num)[0].indices)


def test_without_a_weight_evidence_changes_nothing() -> None:
    evidence = ledger(gen_0=[-1] * 100, gen_3=[1] * 100)
    selection = Selection(bank(), evidence, EvidenceSettings())
    assert selection.rank(SIMILARITY, SIMILARITY[:1], 3)[0] == best(SIMILARITY, 3)


def test_the_score_is_similarity_plus_weight_times_usefulness() -> None:
    evidence = ledger(gen_0=[-1] * 30, gen_2=[1] * 30)
    settings = EvidenceSettings(weight=2.0, exploration=0.25)
    ranking = Selection(bank(), evidence, settings).rank(SIMILARITY, SIMILARITY[:1], 4)[0]

    def score(index: int) -> float:
        low, _, high = evidence.usefulness(f"gen_{index}")
        return float(SIMILARITY[index]) + 2.0 * (0.75 * low + 0.25 * high)

    expected = sorted(((score(index), index) for index in range(4)), reverse=True)
    assert list(ranking.indices) == [index for _, index in expected] == [2, 1, 3, 0]
    assert ranking.scores == pytest.approx([value for value, _ in expected], abs=1e-6)


def test_exploration_prefers_what_was_hardly_used() -> None:
    evidence = ledger(gen_0=[1, -1] * 50)
    cautious, curious = (Selection(bank(), evidence, EvidenceSettings(weight=1.0, exploration=e)) for e in (0.0, 1.0))
    assert skills_of(cautious, 4)[0] == 0
    assert skills_of(curious, 4) == [1, 2, 3, 0]


def test_what_misleads_with_confidence_is_left_out() -> None:
    settings = EvidenceSettings(prune_misleading_above=0.5)
    sure = ledger(gen_0=[-1] * 40, gen_1=[-1] * 2, gen_2=[-1, 0] * 20)
    assert skills_of(Selection(bank(), sure, settings), 4) == [1, 2, 3]
    everything = ledger(**{f"gen_{index}": [-1] * 40 for index in range(4)})
    assert skills_of(Selection(bank(), everything, settings), 4) == []


@pytest.mark.parametrize(
    ("num", "expected"),
    [(1, [1]), (2, [1, 0]), (3, [1, 3, 0]), (4, [1, 3, 0])],
)
def test_items_on_probation_have_their_share_at_the_last_ranks(num: int, expected: list[int]) -> None:
    statuses = ["probation", None, "probation", "admitted"]
    assert skills_of(Selection(bank(statuses), EvidenceLedger(), EvidenceSettings()), num) == expected


def test_a_larger_share_takes_more_of_them() -> None:
    statuses = ["probation", None, "probation", "admitted"]
    half = Selection(bank(statuses), EvidenceLedger(), EvidenceSettings(probation_frac=0.5))
    assert skills_of(half, 4) == [1, 3, 0, 2]
    none = Selection(bank(statuses), EvidenceLedger(), EvidenceSettings(probation_frac=0.0))
    assert skills_of(none, 4) == [1, 3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", -1.0),
        ("exploration", 1.5),
        ("half_life_steps", 0.0),
        ("confidence", 1.0),
        ("prune_misleading_above", 1.0),
        ("probation_frac", 2.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"contexts.evidence.{name} must be .*got"):
        replace(EvidenceSettings(), **{name: value})
