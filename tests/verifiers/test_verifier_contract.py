"""What every verifier's verdicts mean, whatever it grades by; above all of completions that could not be judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.evaluation.samples import to_sample
from sgsd_lightning.metrics.measurements import combine
from sgsd_lightning.skills.growth.memories import to_memory
from sgsd_lightning.training import RunCallback, SampledEvaluation, StepReport
from sgsd_lightning.training.step_metrics import rollout_metrics
from sgsd_lightning.types import FinishReason, JudgedRollout, RewardSpan, Rollout, Verdict
from sgsd_lightning.verifiers import Grade, NoisyVerifier, Verifier
from tests.support.runs import Run, data_of, tiny_run
from tests.support.tiny import PROBLEMS, tiny_rollout


class Given(Verifier):
    """Gives the same grade to everything."""

    def __init__(self, grade: Grade, truncated_rollouts: str = "neutral") -> None:
        super().__init__(truncated_rollouts)  # type: ignore[arg-type]
        self.given = grade

    def grade(self, rollout: Rollout) -> Grade:
        return self.given


class Sometimes(Verifier):
    """Cannot judge completions whose first id is even; the others are right where the second is."""

    def grade(self, rollout: Rollout) -> Grade:
        first, second = (*rollout.completion_ids, 0, 0)[:2]
        reward = None if first % 2 == 0 else float(second % 2 == 0)
        return Grade(reward=reward, answer=None if reward is None else "found")


def rollout(finish_reason: FinishReason = FinishReason.STOPPED, place: int = 0) -> Rollout:
    return tiny_rollout(PROBLEMS[place], [1], [2, 3], finish_reason=finish_reason)


def verdict_of(grade: Grade, finish_reason: FinishReason, truncated_rollouts: str = "neutral") -> Verdict:
    (judged,) = Given(grade, truncated_rollouts).verify([rollout(finish_reason)])
    return judged.verdict


@pytest.mark.parametrize(
    ("reward", "accepted", "expected"),
    [
        (1.0, None, True),
        (0.25, None, True),
        (0.0, None, False),
        (-1.0, None, False),
        (0.9, False, False),
        (-0.1, True, True),
        (None, None, None),
        (None, True, None),
        (None, False, None),
    ],
)
def test_a_reward_above_zero_is_right_unless_the_grade_says_otherwise(
    reward: float | None, accepted: bool | None, expected: bool | None
) -> None:
    grade = Grade(reward=reward, answer="a", accepted=accepted)
    assert grade.is_accepted is expected
    verdict = verdict_of(grade, FinishReason.STOPPED)
    assert (verdict.reward, verdict.accepted, verdict.answer) == (reward, expected, "a")
    assert verdict.outcome == {True: 1, False: -1, None: 0}[expected]
    assert not verdict.is_dropped


@pytest.mark.parametrize(
    ("truncated_rollouts", "reward", "outcome", "is_dropped"),
    [
        ("failure", 1.0, 1, False),
        ("failure", 0.0, -1, False),
        ("failure", None, 0, False),
        ("neutral", 1.0, 1, False),
        ("neutral", 0.0, 0, False),
        ("neutral", None, 0, False),
        ("dropped", 1.0, 1, False),
        ("dropped", 0.0, 0, True),
        ("dropped", None, 0, True),
    ],
)
def test_what_was_cut_counts_as_the_setting_says(
    truncated_rollouts: str, reward: float | None, outcome: int, is_dropped: bool
) -> None:
    verdict = verdict_of(Grade(reward=reward, answer=None), FinishReason.TRUNCATED, truncated_rollouts)
    assert (verdict.outcome, verdict.is_dropped) == (outcome, is_dropped)
    assert verdict.accepted is (None if reward is None else reward > 0)
    assert verdict.reward == reward


def test_verdicts_stand_beside_their_rollouts_with_the_spans_of_their_grades() -> None:
    spans = (RewardSpan(start=0, end=1, reward=0.5), RewardSpan(start=1, end=2, reward=-0.5))
    asked = [rollout(place=place) for place in range(3)]
    found = Given(Grade(reward=0.0, answer=None, spans=spans)).verify(asked)
    assert [judged.rollout for judged in found] == asked
    assert {judged.verdict.spans for judged in found} == {spans}
    assert Given(Grade(reward=0.0, answer=None)).verify([]) == []
    with pytest.raises(ValueError, match=r"truncated_rollouts must be one of .*; got 'kept'"):
        Given(Grade(reward=0.0, answer=None), "kept")


def test_what_could_not_be_judged_is_no_zero_in_any_mean() -> None:
    rewards = [None, 1.0, 0.5, None, 0.0]
    judged = [
        Given(Grade(reward=reward, answer=None)).verify([rollout(place=place)])[0]
        for place, reward in enumerate(rewards)
    ]
    found = combine([rollout_metrics(judged[:2]), rollout_metrics(judged[2:])])
    assert found["rollout/reward_mean"] == pytest.approx(0.5)
    assert found["rollout/unjudged_frac"] == pytest.approx(2 / 5)
    assert found["rollout/accepted_frac"] == pytest.approx(2 / 5)
    assert found["rollout/dropped_frac"] == 0
    nothing = combine([rollout_metrics([judged[0], judged[3]])])
    assert (nothing["rollout/unjudged_frac"], nothing["rollout/reward_mean"]) == (1.0, 0.0)
    assert nothing["rollout/equal_rewards_frac"] == 0, "a group without a reward is not one of equal rewards"


def test_rewards_of_a_group_are_equal_if_those_that_there_are_are_equal() -> None:
    def group(*rewards: float | None) -> float:
        judged = [Given(Grade(reward=reward, answer=None)).verify([rollout()])[0] for reward in rewards]
        return combine([rollout_metrics(judged)])["rollout/equal_rewards_frac"]

    assert group(1.0, None, 1.0) == 1
    assert group(1.0, None, 0.0) == 0
    assert group(None, None) == 0


def test_what_could_not_be_judged_is_no_memory_no_success_and_no_flip() -> None:
    verifier = Given(Grade(reward=None, answer=None))
    (judged,) = verifier.verify([rollout()])
    assert to_memory(judged, "m") is None
    assert to_sample("set", judged, ()).is_correct is False
    assert NoisyVerifier(verifier, 1.0).verify([rollout()])[0].verdict == judged.verdict
    evaluation = SampledEvaluation(2)
    (right,) = Given(Grade(reward=1.0, answer="a")).verify([rollout()])
    evaluation.update([judged, right])
    found = evaluation.take()
    assert (found["avg@k"], found["pass@k"]) == (0.5, 1.0)
    assert (found["reward_mean"], found["unjudged_frac"]) == (1.0, 0.5)


class Witness(RunCallback):
    def __init__(self) -> None:
        self.judged: list[JudgedRollout] = []
        self.stances: list[int] = []
        self.metrics: list[dict[str, float]] = []

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        for step in report.learner_steps:
            self.judged += step.record.judged
            self.stances += [stance.polarity for stances in step.record.stances for stance in stances]
        self.metrics.append(dict(report.metrics))


def test_a_run_trains_on_what_could_be_judged(tmp_path: Path) -> None:
    witness = Witness()
    run = Run(module=lambda: {"verifier": Sometimes("failure")}, trainer=lambda: {"callbacks": [witness]})
    module, trainer, recorder = tiny_run(run, 1, tmp_path)
    trainer.fit(module, datamodule=data_of(run, 1))
    unjudged = [entry.verdict.reward is None for entry in witness.judged]
    assert 0 < sum(unjudged) < len(unjudged) == 12
    for entry in witness.judged:
        assert (entry.verdict.accepted is None) == (entry.verdict.outcome == 0) == (entry.verdict.reward is None)
    polarities = [witness.stances[3 * place : 3 * place + 3] for place in range(len(unjudged))]
    assert all(not any(row) for row, is_open in zip(polarities, unjudged, strict=True) if is_open)
    assert any(any(row) for row in polarities)
    fractions = [metrics["rollout/unjudged_frac"] for metrics in witness.metrics]
    assert fractions == [sum(unjudged[start : start + 4]) / 4 for start in (0, 4, 8)]
    for place, metrics in enumerate(witness.metrics):
        rewards = [entry.verdict.reward for entry in witness.judged[4 * place : 4 * place + 4]]
        known = [reward for reward in rewards if reward is not None]
        assert metrics["rollout/reward_mean"] == pytest.approx(sum(known) / max(1, len(known)))
    assert all(gradient.isfinite().all() for step in recorder.gradients for gradient in step.values())
