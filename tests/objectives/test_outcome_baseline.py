"""Outcomes compared with a baseline, against hand arithmetic; `none` is the paper to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sgsd_lightning.metrics.measurements import Mean
from sgsd_lightning.objectives import GatedPolarity, WeightedSum
from sgsd_lightning.objectives.outcome_baseline import OutcomeBaseline
from sgsd_lightning.types import Observation, TokenScores, Verdict
from tests.support.tiny import verdict

OUTCOMES = [1, -1, -1, 0, -1, -1]
GROUPS = [0, 0, 0, 0, 1, 1]


def make_scores() -> tuple[Tensor, TokenScores]:
    generator = torch.Generator().manual_seed(1)
    student = -torch.rand(6, 5, generator=generator, dtype=torch.float64)
    teacher = -torch.rand(6, 3, 5, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    mask = torch.ones(6, 5, dtype=torch.bool)
    scores = TokenScores(
        student_logprob=student,
        teacher_logprob=teacher,
        completion_mask=mask,
        loss_mask=mask,
        context_weight=torch.full((6, 3), 1 / 3, dtype=torch.float64),
        group=torch.tensor(GROUPS),
        step_index=torch.zeros(6, 5, dtype=torch.int64),
        sampled_logprob=torch.zeros(6, 5, dtype=torch.float64),
        student_entropy=torch.zeros(6, 5, dtype=torch.float64),
        teacher_entropy=torch.zeros(6, 3, 5, dtype=torch.float64),
    )
    return student, scores


VERDICTS: list[Verdict] = [verdict(outcome) for outcome in OUTCOMES]
PER_ROLLOUT = {
    "none": [1.0, -1.0, -1.0, 0.0, -1.0, -1.0],
    "group": [4 / 3, -2 / 3, -2 / 3, 0.0, 0.0, 0.0],  # means -1/3 over three that say something, and -1
    "batch": [1.6, -0.4, -0.4, 0.0, -0.4, -0.4],  # mean -3/5
}


@pytest.mark.parametrize("name", sorted(PER_ROLLOUT))
def test_loss_and_gradient_are_those_of_the_centred_outcomes(name: str) -> None:
    student, scores = make_scores()
    result = GatedPolarity(outcome_baseline=name)(scores, VERDICTS)
    (gradient,) = torch.autograd.grad(result.loss, student)
    # each rollout alone under outcome 1, scaled by hand
    alone = [_alone(scores, row) for row in range(6)]
    expected = sum(weight * loss for weight, (loss, _) in zip(PER_ROLLOUT[name], alone, strict=True)) / 6
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)
    rows = torch.stack([weight * part for weight, (_, part) in zip(PER_ROLLOUT[name], alone, strict=True)]) / 6
    torch.testing.assert_close(gradient, rows, rtol=1e-6, atol=1e-12)


def _alone(scores: TokenScores, row: int) -> tuple[float, Tensor]:
    fields = ("student_logprob", "teacher_logprob", "completion_mask", "loss_mask", "context_weight", "group")
    fields += ("step_index", "sampled_logprob", "student_entropy", "teacher_entropy")
    student = scores.student_logprob[row : row + 1].detach().requires_grad_()
    one = replace(scores, **{name: getattr(scores, name)[row : row + 1] for name in fields if name != fields[0]})
    result = GatedPolarity()(replace(one, student_logprob=student), [verdict(1)])
    (gradient,) = torch.autograd.grad(result.loss, student)
    return result.loss.item(), gradient[0]


def test_evidence_on_the_bank_is_what_the_verdict_says() -> None:
    _, scores = make_scores()
    plain, centred = (GatedPolarity(outcome_baseline=name)(scores, VERDICTS) for name in ("none", "group"))
    assert plain.stances is not None
    assert centred.stances is not None
    assert torch.equal(plain.stances.polarity, centred.stances.polarity)
    # the second problem's two rollouts move nothing although their teachers take a stance
    takes_stance = (plain.stances.stance != 0).any(dim=-1)
    assert takes_stance[4:].any()
    for result, weights in ((plain, PER_ROLLOUT["none"]), (centred, PER_ROLLOUT["group"])):
        expected = (takes_stance & (torch.tensor(weights) != 0)).float().mean().item()
        measured = result.metrics["objective/active_rollout_frac"]
        assert isinstance(measured, Mean)
        assert float(measured.value) == pytest.approx(expected)


@pytest.mark.parametrize("implementation", ["reference", "chunked", "triton"])
def test_every_implementation_takes_outcomes_that_are_fractions(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, scores = make_scores()
    expected = sum(w * _alone(scores, row)[0] for row, w in enumerate(PER_ROLLOUT["batch"])) / 6
    monkeypatch.setenv("SGSD_KERNELS_IMPLEMENTATION", implementation)
    single = replace(
        scores,
        student_logprob=student.float(),
        teacher_logprob=scores.teacher_logprob.float(),
        context_weight=scores.context_weight.float(),
    )
    loss = GatedPolarity(outcome_baseline="batch")(single, VERDICTS).loss
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def observed(*outcomes: int) -> list[Observation]:
    settings = {"source_ids": ("a",), "polarity": 0, "stance_score": 0.0, "gated_loss": 0.0}
    return [Observation(outcome=outcome, **settings) for outcome in outcomes]


def test_a_running_baseline_follows_earlier_steps_and_is_saved() -> None:
    objective = GatedPolarity(outcome_baseline="running", baseline_decay=0.5)
    outcome, group = torch.tensor([1.0, -1.0, 0.0]), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(objective.baseline.centre(outcome, group), outcome)
    objective.observe(1, observed(1, -1, -1, -1, 0))  # mean -1/2
    assert objective.baseline.centre(outcome, group).tolist() == [1.25, -0.75, 0.0]
    objective.observe(2, observed(0, 0))  # nothing was judged
    objective.observe(3, observed(1))
    assert objective.baseline.running == 0.5 * -0.25 + 0.5
    resumed = WeightedSum([GatedPolarity(), GatedPolarity(outcome_baseline="running")], [1.0, 1.0])
    resumed.load_state_dict(WeightedSum([GatedPolarity(), objective], [1.0, 1.0]).state_dict())
    other = resumed.objectives[1]
    assert isinstance(other, GatedPolarity)
    assert other.baseline.running == objective.baseline.running
    assert GatedPolarity().state_dict() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outcome_baseline": "mean"}, "objective.outcome_baseline must be one of .*'mean'"),
        ({"outcome_baseline": "running", "baseline_decay": 1.0}, "objective.baseline_decay must be at least 0"),
        ({"outcome_baseline": "group", "polarity": "imitate"}, "outcome_baseline must be none where .*imitate"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedPolarity(**settings)


def test_nothing_is_a_baseline_of_nothing() -> None:
    empty = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for name in ("none", "group", "batch", "running"):
        assert OutcomeBaseline(name, 0.9).centre(*empty).shape == (0,)
