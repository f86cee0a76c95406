"""The toy world's writer reads conventions off traces and speaks in sentences that the base model knows."""

from __future__ import annotations

import pytest

from sgsd_lightning.skills import Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.toy import ConventionWriter, load_toy_bank, toy_problems
from sgsd_lightning.toy.convention_writer import followed_conventions
from sgsd_lightning.toy.problems import ALL_CONVENTIONS, Convention, Minus, Precedence, solve, trace

FIRST, LEFT = Precedence.MULTIPLICATION_FIRST, Precedence.LEFT_TO_RIGHT
DIFFERENT_MINUS = "1 - 4 + 2 * 3"


def memory(problem: str, completion: str, is_success: bool, memory_id: str = "m") -> Memory:
    return Memory(
        memory_id=memory_id,
        problem_id=problem,
        problem=problem,
        reference_answer=str(solve(problem)[1]),
        completion=completion,
        answer=None,
        reward=float(is_success),
        outcome=1 if is_success else -1,
        finish_reason="stopped",
    )


@pytest.mark.parametrize("convention", ALL_CONVENTIONS)
def test_every_convention_is_read_off_its_own_trace(convention: Convention) -> None:
    found = followed_conventions(DIFFERENT_MINUS, trace(DIFFERENT_MINUS, convention))
    assert found == [convention.precedence, convention.minus]


def test_nothing_is_said_where_conventions_take_the_same_steps() -> None:
    assert followed_conventions("5 - 2 + 2 * 3", trace("5 - 2 + 2 * 3")) == [FIRST]
    assert followed_conventions("2 * 3", trace("2 * 3")) == []
    assert followed_conventions(DIFFERENT_MINUS, "something else") == []


@pytest.mark.parametrize(
    ("convention", "is_success", "kind", "truths"),
    [
        (Convention(FIRST, Minus.WRAP), True, Skill, ["helpful", "helpful"]),
        (Convention(LEFT, Minus.ABSOLUTE), True, Skill, ["misleading"]),
        (Convention(LEFT, Minus.ABSOLUTE), False, Mistake, ["helpful", "helpful"]),
        (Convention(FIRST, Minus.ABSOLUTE), False, Mistake, ["misleading", "helpful"]),
    ],
)
def test_successes_advise_what_they_did_and_failures_the_opposite(
    convention: Convention, is_success: bool, kind: type, truths: list[str]
) -> None:
    completion = trace(DIFFERENT_MINUS, convention)
    (written,) = ConventionWriter().extract([memory(DIFFERENT_MINUS, completion, is_success)])
    assert [draft.kind for draft in written.drafts] == [kind] * len(truths)
    assert [draft.extra["toy_truth"] for draft in written.drafts if draft.extra] == truths
    assert all(draft.sources == ("m",) for draft in written.drafts)


def test_what_follows_no_convention_is_a_reject() -> None:
    (written,) = ConventionWriter().extract([memory(DIFFERENT_MINUS, "1 + 1 = 3", False)])
    assert not written.drafts
    assert "follows no convention" in written.rejects[0].reason


def test_all_it_says_stands_in_the_toy_bank_and_holds_no_digit() -> None:
    bank = load_toy_bank()
    known = {text for item in bank["general_skills"] + bank["common_mistakes"] for text in item.values()}
    memories = [
        memory(problem.text, trace(problem.text, convention), is_success, f"{problem.problem_id}/{number}/{is_success}")
        for problem in toy_problems("train", 20)
        for number, convention in enumerate(ALL_CONVENTIONS)
        for is_success in (True, False)
    ]
    drafts = [draft for written in ConventionWriter().extract(memories) for draft in written.drafts]
    texts = {text for draft in drafts for text in draft.texts.values()}
    assert texts <= known
    assert not any(character.isdigit() for text in texts for character in text)
    assert len({draft.texts.get("title") for draft in drafts if draft.kind is Skill}) == 6
