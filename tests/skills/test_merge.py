"""Merging: whatever a writer says, no source is lost, nothing grows, and doing it again changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from sgsd_lightning.language_models import ModelUnavailableError
from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank
from sgsd_lightning.skills.growth.merge import MergeSettings, merge_items
from sgsd_lightning.skills.growth.merge_bank import merge_candidates
from sgsd_lightning.skills.growth.writer import Draft, Reject, Written
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.provenance import list_sources, unite_sources
from sgsd_lightning.skills.similarity import LexicalSimilarity
from tests.skills.bank_items import ScriptedWriter, draft_of, mistake, skill

WORDS = ("prime", "divisor", "triangle", "angle", "coin", "parabola", "sum", "case")
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
SOURCES = st.none() | st.lists(st.sampled_from(["m1", "m2", "m3", "m4"]), min_size=1, max_size=3)
ITEMS = st.lists(st.tuples(TEXTS, SOURCES), max_size=14).map(
    lambda found: [
        skill(f"gen_cand_{n:03d}", text, None if sources is None else {"sources": sources})
        for n, (text, sources) in enumerate(found)
    ]
)
DRAFTS = st.builds(
    Draft,
    kind=st.sampled_from([Skill, Skill, Skill, Mistake]),
    texts=st.fixed_dictionaries(
        {"title": TEXTS, "principle": st.sampled_from(["and", "", "or"]), "when_to_apply": st.just("the")}
    ),
    sources=st.lists(st.sampled_from([f"gen_cand_{n:03d}" for n in range(14)] + ["merged_001", "x"]), max_size=4).map(
        tuple
    ),
)
DISTINCT = [skill(f"gen_cand_{n:03d}", f"alpha{n} beta{n} gamma{n}") for n in range(80)]


def nothing(items: Sequence[Any]) -> Written:
    return Written(sources=tuple(item.item_id for item in items))


def pairs(items: Sequence[Any]) -> Written:
    """Two neighbours into one."""
    drafts = [draft_of(items[n : n + 2], f"both {items[n].item_id}") for n in range(0, len(items) - 1, 2)]
    return Written(sources=tuple(item.item_id for item in items), drafts=tuple(drafts))


def ids_of(items: Sequence[Skill | Mistake]) -> list[str]:
    return [item.item_id for item in items]


@settings(deadline=None, max_examples=60)
@given(ITEMS, st.lists(st.lists(DRAFTS, max_size=8), min_size=1, max_size=3), st.integers(2, 6))
def test_no_answer_loses_a_source_or_makes_more_items(
    items: list[Skill], answers: list[list[Draft]], group_size: int
) -> None:
    def answer(group: Sequence[Any]) -> Written:
        drafts = answers[len(writer.groups) % len(answers)]
        return Written(sources=tuple(ids_of(group)), drafts=tuple(drafts))

    writer = ScriptedWriter(answer)
    states: list[Sequence[Skill]] = []
    result = merge_items(items, writer, MergeSettings(group_size=group_size), on_progress=states.append)
    for state in [*states, result.items]:
        assert all(list_sources(item) for item in state)
        assert set(unite_sources(state)) == set(unite_sources(items))
        assert len(state) <= len(items)
        assert len(set(ids_of(state))) == len(state)
        assert all(item.principle.strip() for item in state)
    again = merge_items(result.items, None)
    assert again.items == result.items


@pytest.mark.parametrize(
    "drafts",
    [
        (),
        (draft_of([skill("elsewhere", "x")]),),
        (replace(draft_of(DISTINCT[:2]), kind=Mistake),),
        (replace(draft_of(DISTINCT[:2]), texts={"title": "t", "principle": "p"}),),
        (draft_of(DISTINCT[:1], "one item in other words"),),
        (draft_of(DISTINCT[:2]),) * 81,
    ],
)
def test_an_answer_that_is_of_no_use_changes_nothing(drafts: tuple[Draft, ...]) -> None:
    writer = ScriptedWriter(lambda items: Written(sources=tuple(ids_of(items)), drafts=drafts))
    result = merge_items(DISTINCT, writer, MergeSettings(group_size=80))
    assert result.items == tuple(DISTINCT)


def reasons(drafts: Sequence[Draft], **options: Any) -> tuple[list[str], list[str]]:
    """The ids of what is left of six items after one answer, and why drafts were rejected."""
    writer = ScriptedWriter(lambda items: Written(sources=tuple(ids_of(items)), drafts=tuple(drafts)))
    result = merge_items(DISTINCT[:6], writer, **options)
    return ids_of(result.items), [reject.reason for reject in result.rejects]


def test_what_is_wrong_with_a_draft_is_said() -> None:
    good = draft_of([DISTINCT[3], DISTINCT[1]], "good")
    found, why = reasons(
        [
            good,
            draft_of([DISTINCT[1], DISTINCT[2]]),
            draft_of([skill("gone", "x")]),
            replace(draft_of(DISTINCT[4:6]), kind=Mistake),
            replace(draft_of(DISTINCT[4:6]), texts={"title": " ", "principle": "p", "when_to_apply": "w"}),
        ]
    )
    assert found == ["gen_cand_000", "merged_001", "gen_cand_002", "gen_cand_004", "gen_cand_005"]
    assert why == [
        "gen_cand_001 stand in an earlier draft of the same answer already",
        "it names none of the items that were shown",
        "a mistake among items that are each a skill",
        "the field 'title' must be a non-empty text; got ' '",
    ]
    assert reasons([good] * 7) == (ids_of(DISTINCT[:6]), ["7 drafts for 6 items: a merge must not make them more"])


def test_a_guard_refuses_a_merged_item_and_keeps_what_it_was_made_of() -> None:
    found, why = reasons(
        [draft_of(DISTINCT[:2], "the answer is 42")], guard=lambda item: "leak" if "42" in item.text else None
    )
    assert (found, why) == (ids_of(DISTINCT[:6]), ["leak"])


def test_layers_go_on_until_one_group_was_merged() -> None:
    writer = ScriptedWriter(pairs)
    result = merge_items(DISTINCT, writer, MergeSettings(group_size=32), ids=ItemIds("dyn_", last_number=10))
    assert result.stopped == "one group"
    assert [(layer.num_in, layer.num_groups) for layer in result.layers] == [(80, 0), (80, 3), (41, 2), (21, 1)]
    assert max(len(group) for group in writer.groups) <= 32
    assert len(result.items) == 11
    # 39 went to the first layer and 20 to the second, of which one found no partner in the third
    assert sorted(ids_of(result.items)) == [f"dyn_{n:03d}" for n in range(10 + 39 + 20, 10 + 39 + 20 + 11)]
    assert set(unite_sources(result.items)) == set(ids_of(DISTINCT))


def test_no_progress_ends_after_patience_and_no_layer_repeats_the_groups_of_another() -> None:
    writer = ScriptedWriter(nothing)
    result = merge_items(DISTINCT, writer, MergeSettings(group_size=32, patience=3))
    assert result.stopped == "no progress"
    assert len(writer.groups) == 3 * 3
    assert len(set(writer.groups)) > 3
    assert result.items == tuple(DISTINCT)


def test_after_each_layer_duplicates_are_removed_again() -> None:
    def same(items: Sequence[Any]) -> Written:
        return Written(sources=(), drafts=(draft_of(items, "count divisors by exponents"),))

    result = merge_items(DISTINCT, ScriptedWriter(same), MergeSettings(group_size=40))
    assert [(layer.num_out, layer.num_duplicates) for layer in result.layers] == [(80, 0), (1, 1)]
    assert set(list_sources(result.items[0])) == set(ids_of(DISTINCT))


def test_an_interrupted_merge_goes_on_from_what_it_reached() -> None:
    def fails_at_the_second(items: Sequence[Any]) -> Written:
        if len(writer.groups) == 2:
            raise ModelUnavailableError("nobody answers")
        return pairs(items)

    writer = ScriptedWriter(fails_at_the_second)
    states: list[Sequence[Skill]] = []
    with pytest.raises(ModelUnavailableError, match="nobody answers"):
        merge_items(DISTINCT, writer, on_progress=states.append)
    assert [len(state) for state in states] == [67]
    result = merge_items(states[-1], ScriptedWriter(pairs))
    assert set(unite_sources(result.items)) == set(ids_of(DISTINCT))
    assert len(result.items) < 20


def test_after_the_deadline_no_group_is_started() -> None:
    writer = ScriptedWriter(pairs)
    result = merge_items(DISTINCT, writer, deadline=time.monotonic() - 1)
    assert (result.stopped, writer.groups, result.items) == ("deadline", [], tuple(DISTINCT))


def test_ids_that_stand_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="the id 'gen_1' stands twice among the items to merge"):
        merge_items([skill("gen_1", "a"), skill("gen_1", "b")], None)


@pytest.mark.parametrize("field", ["group_size", "patience"])
def test_impossible_settings_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=rf"merge\.{field} must be at least"):
        MergeSettings(**{field: 0})


def candidates(num_skills: int = 40) -> SkillBank:
    skills = [replace(item, skill_id=f"gen_cand_{n:06d}") for n, item in enumerate(DISTINCT[:num_skills])]
    mistakes = [mistake(f"err_cand_{n}", f"wrong{n // 2} sign{n // 2}") for n in range(6)]
    return SkillBank(general_skills=tuple(skills), common_mistakes=tuple(mistakes), metadata={"from": "a run"})


def test_a_bank_of_candidates_becomes_a_numbered_bank_that_says_how() -> None:
    states: list[SkillBank] = []
    bank = merge_candidates(
        candidates(), ScriptedWriter(skills_only), source="candidates.json", on_progress=states.append
    )
    assert ids_of(bank.general_skills) == [f"gen_{n:03d}" for n in range(1, len(bank.general_skills) + 1)]
    assert ids_of(bank.common_mistakes) == ["err_001", "err_002", "err_003"]
    assert list_sources(bank.common_mistakes[0]) == ("err_cand_0", "err_cand_1")
    assert set(unite_sources(bank.general_skills)) == set(ids_of(candidates().general_skills))
    assert bank.metadata["from"] == "a run"
    merge = bank.metadata["merge"]
    assert merge["source"] == "candidates.json"
    assert (merge["similarity"], merge["writer"]) == ("LexicalSimilarity", "ScriptedWriter")
    assert merge["general_skills"]["num_in"] == 40
    assert merge["general_skills"]["num_out"] == len(bank.general_skills) == 10
    assert merge["common_mistakes"]["layers"][0]["num_duplicates"] == 3
    assert SkillBank.from_json(bank.to_json()) == bank
    for state in states:
        assert SkillBank.from_json(state.to_json()) == state
        assert set(unite_sources(state.general_skills)) == set(ids_of(candidates().general_skills))


def skills_only(items: Sequence[Any]) -> Written:
    return pairs(items) if isinstance(items[0], Skill) else nothing(items)


def test_ids_of_a_bank_are_kept_and_a_second_merge_changes_no_item() -> None:
    bank = merge_candidates(candidates(), None)
    assert len(bank.general_skills) == 40
    thinner = replace(bank, general_skills=bank.general_skills[5:])
    again = merge_candidates(thinner, None)
    assert (again.general_skills, again.common_mistakes) == (thinner.general_skills, thinner.common_mistakes)


def test_rejects_of_both_kinds_are_handed_over() -> None:
    found: list[Reject] = []
    rubbish: Callable[[Sequence[Any]], Written] = lambda items: Written(  # noqa: E731
        sources=(), rejects=(Reject(sources=(items[0].item_id,), reason="no JSON", text="hm"),)
    )
    merge_candidates(candidates(3), ScriptedWriter(rubbish), on_reject=found.append)
    assert [(reject.sources, reject.reason) for reject in found] == [
        (("gen_cand_000000",), "no JSON"),
        (("err_cand_0",), "no JSON"),
    ]


def test_settings_name_a_similarity() -> None:
    items = [skill("gen_001", "prime divisor sum"), skill("gen_002", "prime divisor case")]
    assert len(merge_items(items, None).items) == 1
    assert len(merge_items(items, None, MergeSettings(compare_by=LexicalSimilarity(0.9))).items) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_settings_come_from_a_configuration_and_go_into_one() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MergeSettings, "merge")
    given = {
        "merge": {"patience": 4, "compare_by": {"class_path": f"{LexicalSimilarity.__module__}.LexicalSimilarity"}}
    }
    given["merge"]["compare_by"]["init_args"] = {"threshold": 0.9}
    for config in (parser.parse_object(given), parser.parse_string(parser.dump(parser.parse_object(given)))):
        read = parser.instantiate_classes(config).merge
        assert (read.patience, read.group_size, read.similarity.threshold) == (4, 32, 0.9)
    assert parser.parse_string(parser.dump(parser.parse_args([]))).merge.compare_by is None
