"""Parts of one's own that return something else: told at their first call what they must return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sgsd_lightning.contexts import ContextBuilder, NoContext
from sgsd_lightning.metrics.measurements import mean_of
from sgsd_lightning.objectives import GatedPolarity, ObjectiveResult
from sgsd_lightning.training.contracts import check_contexts, check_result, judge
from sgsd_lightning.types import JudgedRollout, Rollout, TeacherContext
from sgsd_lightning.verifiers import Grade, RewardFunction, Verifier
from tests.support.tiny import PROBLEMS, judged, tiny_rollout

ROLLOUTS = [tiny_rollout(problem, (1, 2), (3, 4)) for problem in PROBLEMS[:2]]
LOSS = torch.zeros((), requires_grad=True)


class Grading(Verifier):
    """Gives what it was given."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def grade(self, rollout: Rollout) -> Grade:
        return self.given


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (True, "got bool True for problem 'p0'"),
        (None, "got NoneType None"),
        (1.0, "got float 1.0"),
        ((1.0, "4"), "got tuple"),
        ({"reward": 1.0}, "got dict"),
        (Grade(reward=float("nan"), answer=None), "got reward nan"),
        (Grade(reward="1", answer=None), "got reward '1'"),  # type: ignore[arg-type]
        (Grade(reward=1.0, answer=4), "got answer 4"),  # type: ignore[arg-type]
        (Grade(reward=1.0, answer=None, accepted=np.True_), "got accepted"),
        (Grade(reward=1.0, answer=None, accepted=1), "got accepted 1"),  # type: ignore[arg-type]
    ],
)
def test_a_verifier_must_return_grades(given: Any, found: str) -> None:
    with pytest.raises(ValueError, match=r"verifier Grading: grade must return a Grade\(reward=") as info:
        Grading(given).verify(ROLLOUTS)
    assert found in str(info.value)
    assert "\n" not in str(info.value)


def test_rewards_of_other_numeric_types_are_taken_as_floats() -> None:
    for reward in (1, np.float32(0.5), np.int64(1), True):
        (first, _) = Grading(Grade(reward=reward, answer=None)).verify(ROLLOUTS)
        assert type(first.verdict.reward) is float
        assert first.verdict.reward == reward


@pytest.mark.parametrize("grades", [None, [], [Grade(reward=1.0, answer=None)], "ab"])
def test_there_is_a_grade_per_rollout(grades: Any) -> None:
    class Many(Grading):
        def grade_all(self, rollouts: Sequence[Rollout]) -> list[Grade]:
            return grades

    with pytest.raises(ValueError, match=r"verifier Many: grade_all must return a list of one Grade per rollout; got"):
        Many(None).verify(ROLLOUTS)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        [Grade(reward=1.0, answer=None)] * 2,
        [judged(ROLLOUTS[0], 1)],
        [judged(rollout, 1) for rollout in reversed(ROLLOUTS)],
        [JudgedRollout(rollout=rollout, verdict=None) for rollout in ROLLOUTS],  # type: ignore[arg-type]
        [replace(entry, verdict=replace(entry.verdict, outcome=2)) for entry in (judged(r, 1) for r in ROLLOUTS)],
    ],
)
def test_what_verify_itself_returns_is_checked(returned: Any) -> None:
    class Own(Grading):
        def verify(self, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
            return returned

    with pytest.raises(ValueError, match=r"verifier Own: verify must return one JudgedRollout per rollout"):
        judge(Own(None), ROLLOUTS)


def needs_a_column(completions: list[Any], ground_truth: list[str]) -> list[float]:
    return [1.0] * len(completions)


def test_a_reward_function_must_be_passed_what_it_takes() -> None:
    path = f"{__name__}.needs_a_column"
    with pytest.raises(ValueError, match=rf"verifier.function {path} takes ground_truth, .* in verifier.columns"):
        RewardFunction(path).verify(ROLLOUTS)
    assert len(RewardFunction(path, columns={"ground_truth": "answer"}).verify(ROLLOUTS)) == 2


def context(weight: float) -> TeacherContext:
    return TeacherContext(text="a hint", weight=weight)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        [[]],
        [["a hint"], []],
        [context(1.0), context(1.0)],
        [[context(0.5)], []],
        [[context(1.5), context(-0.5)], []],
        [[context(float("nan"))], []],
    ],
)
def test_contexts_must_be_teachers_with_weights_per_rollout(returned: Any) -> None:
    builder: ContextBuilder = NoContext()
    with pytest.raises(ValueError, match=r"contexts NoContext must give one list of TeacherContext per rollout.*; got"):
        check_contexts(builder, returned, 2)
    check_contexts(builder, [[context(0.25), context(0.75)], []], 2)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (LOSS, "must return an ObjectiveResult; got Tensor"),
        (None, "must return an ObjectiveResult; got NoneType"),
        (ObjectiveResult(loss=0.5), "whose loss is a scalar tensor, .* got float 0.5"),  # type: ignore[arg-type]
        (ObjectiveResult(loss=LOSS.expand(2)), r"whose loss is a scalar tensor, .* got a tensor of shape \[2\]"),
        (ObjectiveResult(loss=torch.zeros(())), "whose loss has a gradient"),
        (ObjectiveResult(loss=LOSS, metrics={"objective/a": 0.5}), "scalar tensors or measurements; got objective/a"),  # type: ignore[dict-item]
        (ObjectiveResult(loss=LOSS, metrics={"objective/a": torch.zeros(2)}), "got objective/a"),
        (ObjectiveResult(loss=LOSS, stances=torch.zeros(2)), "whose stances are TeacherStances"),  # type: ignore[arg-type]
    ],
)
def test_an_objective_must_return_its_result(result: Any, message: str) -> None:
    with pytest.raises(
        ValueError, match=rf"objective GatedPolarity must return an ObjectiveResult.*{message}|{message}"
    ):
        check_result(GatedPolarity(), result)


def test_a_sound_result_passes() -> None:
    metrics = {"objective/a": torch.zeros(()), "objective/b": mean_of([1.0])}
    check_result(GatedPolarity(), ObjectiveResult(loss=LOSS, metrics=metrics))
