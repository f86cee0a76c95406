"""Reward functions of TRL's signature as verifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sgsd_lightning.types import FinishReason, Problem, Rollout
from sgsd_lightning.verifiers import RewardFunction
from tests.support.tiny import tiny_rollout

PROBLEM = Problem(problem_id="p", text="2 + 2 = ?", answer="4", metadata={"level": 3})
HERE = "tests.verifiers.test_reward_function"


def rollout(text: str, problem: Problem = PROBLEM, finish_reason: FinishReason = FinishReason.STOPPED) -> Rollout:
    return tiny_rollout(problem, [1, 2], [3, 4], text=text, finish_reason=finish_reason)


def by_level(completions: list[Any], level: list[int], **columns: list[Any]) -> list[float | None]:
    assert columns["answer"] == ["4"] * len(completions)
    return [
        None if "?" in chat[0]["content"] else float(number) for chat, number in zip(completions, level, strict=True)
    ]


def only_texts(completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def too_few(completions: list[Any], **columns: Any) -> list[float]:
    return [1.0]


def not_a_number(completions: list[Any], **columns: Any) -> list[Any]:
    return ["good"] * len(completions)


def broken(completions: list[Any], **columns: Any) -> list[float]:
    raise KeyError("gone")


async def later(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0]


def test_columns_arrive_and_none_is_no_signal() -> None:
    verifier = RewardFunction(f"{HERE}.by_level")
    judged = verifier.verify([rollout("four"), rollout("?"), rollout("five", replace(PROBLEM, metadata={"level": 0}))])
    assert [entry.verdict.reward for entry in judged] == [3.0, None, 0.0]
    assert [entry.verdict.accepted for entry in judged] == [True, None, False]
    assert [entry.verdict.outcome for entry in judged] == [1, 0, -1]


def test_a_function_without_keyword_arguments_gets_what_it_names() -> None:
    verifier = RewardFunction(f"{HERE}.only_texts", completions="text", accept_above=3.0)
    judged = verifier.verify([rollout("abc"), rollout("abcd")])
    assert [entry.verdict.reward for entry in judged] == [3.0, 4.0]
    assert [entry.verdict.accepted for entry in judged] == [False, True]


def test_trl_s_own_reward() -> None:
    pytest.importorskip("trl", reason="needs trl")
    verifier = RewardFunction("trl.rewards.accuracy_reward", columns={"solution": "answer"})
    problem = replace(PROBLEM, answer="$4$")
    judged = verifier.verify([rollout(r"\boxed{4}", problem), rollout(r"\boxed{5}", problem)])
    assert [entry.verdict.outcome for entry in judged] == [1, -1]


def test_truncated_rollouts_are_settled_as_by_any_verifier() -> None:
    cut = rollout("four", replace(PROBLEM, metadata={"level": 0}), FinishReason.TRUNCATED)
    outcomes = {
        rule: RewardFunction(f"{HERE}.by_level", truncated_rollouts=rule).verify([cut])[0].verdict.outcome  # type: ignore[arg-type]
        for rule in ("failure", "neutral")
    }
    assert outcomes == {"failure": -1, "neutral": 0}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.at_all", "cannot be imported"),
        (f"{HERE}.absent", "cannot be imported"),
        ("bare", "cannot be imported"),
        (f"{HERE}.PROBLEM", "must be a plain function"),
        (f"{HERE}.later", "must be a plain function"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardFunction(path)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("too_few", ValueError, "one number or None per completion; got 1 values for 2"),
        ("not_a_number", ValueError, "finite numbers or None; got 'good'"),
        ("broken", RuntimeError, "broken raised KeyError"),
    ],
)
def test_what_a_function_returns_is_checked(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RewardFunction(f"{HERE}.{name}").verify([rollout("a"), rollout("b")])


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'gold'; they have answer, level"):
        RewardFunction(f"{HERE}.by_level", columns={"solution": "gold"}).verify([rollout("a")])
