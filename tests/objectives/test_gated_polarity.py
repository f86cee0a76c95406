"""The objective over token scores against the definition over logits, and against hand arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from sgsd_kernels.gate import reference
from torch import Tensor

from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.types import SupportScores, TokenScores, Verdict
from tests.support.tiny import verdict


def verdicts(*outcomes: int) -> list[Verdict]:
    return [verdict(outcome) for outcome in outcomes]


def scores_of(student: Tensor, teacher: Tensor, mask: Tensor, weights: Tensor) -> TokenScores:
    return TokenScores(
        student_logprob=student,
        teacher_logprob=teacher,
        completion_mask=torch.ones_like(mask),
        loss_mask=mask,
        context_weight=weights,
        group=torch.zeros(len(student), dtype=torch.int64),
        step_index=torch.zeros_like(mask, dtype=torch.int64),
        sampled_logprob=torch.zeros_like(student),
        student_entropy=torch.zeros_like(student),
        teacher_entropy=torch.zeros_like(teacher),
    )


@pytest.mark.parametrize("settings", [{}, {"gate_temperature": 0.3, "log_ratio_clip": 0.5, "stance_threshold": 0.2}])
def test_loss_and_gradient_equal_the_definition_over_logits(settings: dict[str, float]) -> None:
    num_rollouts, num_contexts, length, vocab_size = 3, 4, 7, 19
    student_logits = torch.randn(num_rollouts, length, vocab_size, dtype=torch.float64, requires_grad=True)
    teacher_logits = torch.randn(num_rollouts, num_contexts, length, vocab_size, dtype=torch.float64)
    ids = torch.randint(vocab_size, (num_rollouts, length))
    mask = torch.rand(num_rollouts, length) < 0.8
    weights = torch.rand(num_rollouts, num_contexts, dtype=torch.float64).softmax(-1)
    expected = reference.gated_polarity_loss(
        student_logits,
        teacher_logits,
        ids,
        mask,
        weights,
        torch.tensor([1.0, 0.0, 1.0]),
        gate_temperature=settings.get("gate_temperature", 1.0),
        log_ratio_clip=settings.get("log_ratio_clip", 3.0),
        stance_threshold=settings.get("stance_threshold", 0.05),
        support_top_k=-1,
    )
    (expected_gradient,) = torch.autograd.grad(expected.loss, student_logits)

    student = student_logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    teacher = teacher_logits.log_softmax(-1).gather(-1, ids[:, None, :, None].expand(-1, num_contexts, -1, 1))[..., 0]
    result = GatedPolarity(**settings)(scores_of(student, teacher, mask, weights), verdicts(1, -1, 1))
    (gradient,) = torch.autograd.grad(result.loss, student_logits)
    torch.testing.assert_close(result.loss, expected.loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.stances.polarity, expected.polarity.to(result.stances.polarity.dtype))


def test_one_token_by_hand() -> None:
    """Student log 1/2, teacher log 1/4 on a rejected answer: r = -log 2, the teacher dislikes it, so it is helpful."""
    student = torch.tensor([[math.log(0.5)]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[[math.log(0.25)]]], dtype=torch.float64)
    scores = scores_of(student, teacher, torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.float64))
    result = GatedPolarity()(scores, verdicts(-1))
    (gradient,) = torch.autograd.grad(result.loss, student)
    r = -math.log(2)
    gate = 1 / (1 + math.exp(r * r / 2))
    assert result.stances.polarity.item() == 1
    assert result.loss.item() == pytest.approx(math.log(2) - math.log(1 + math.exp(-r * r / 2)))
    assert gradient.item() == pytest.approx(-gate * r)
    assert gradient.item() > 0, "descending lowers the log-probability of a token of a rejected answer"


@pytest.mark.parametrize("outcome", [1, -1, 0])
@pytest.mark.parametrize("log_ratio", [0.5, -0.5, 0.01])
def test_polarity_is_outcome_times_stance_and_imitation_is_always_helpful(outcome: int, log_ratio: float) -> None:
    student = torch.full((1, 3), -1.0, requires_grad=True)
    scores = scores_of(student, torch.full((1, 1, 3), -1.0 + log_ratio), torch.ones(1, 3) > 0, torch.ones(1, 1))
    stance = 0 if abs(log_ratio) < 0.05 else (1 if log_ratio > 0 else -1)
    assert GatedPolarity()(scores, verdicts(outcome)).stances.polarity.item() == outcome * stance
    assert GatedPolarity(polarity="imitate")(scores, verdicts(outcome)).stances.polarity.item() == 1


@pytest.mark.parametrize(("num_contexts", "length", "mask_value"), [(0, 4, True), (2, 4, False), (2, 0, True)])
def test_nothing_to_learn_from_gives_a_zero_loss_with_a_zero_gradient(
    num_contexts: int, length: int, mask_value: bool
) -> None:
    student = torch.randn(2, length, requires_grad=True)
    mask = torch.full((2, length), mask_value)
    scores = scores_of(student, torch.randn(2, num_contexts, length), mask, torch.ones(2, num_contexts))
    result = GatedPolarity()(scores, verdicts(1, -1))
    result.loss.backward()
    assert result.loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()
    assert all(math.isfinite(measured.value) for measured in result.metrics.values())


def test_metrics_average_over_the_contexts_that_are_there() -> None:
    student = torch.full((2, 2), -1.0)
    teacher = torch.tensor([[[-0.5, -0.5], [-1.5, -1.5]], [[-0.5, -0.5], [9.0, 9.0]]])
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    metrics = GatedPolarity()(scores_of(student, teacher, torch.ones(2, 2) > 0, weights), verdicts(1, 1)).metrics
    assert metrics["objective/helpful_frac"].value.item() == pytest.approx(2 / 3)
    assert metrics["objective/misleading_frac"].value.item() == pytest.approx(1 / 3)
    assert metrics["objective/neutral_frac"].value.item() == 0
    assert metrics["objective/stance_score"].value.item() == pytest.approx((0.5 - 0.5 + 0.5) / 3)
    assert metrics["objective/active_rollout_frac"].value.item() == 1


def test_the_support_variant_reads_the_divergence_in_its_gate() -> None:
    """Two tokens each: with equal log-ratios of the sampled token the loss follows KL(teacher || student)."""
    student_probability = torch.tensor([[[[0.5, 0.5]]]], dtype=torch.float64)
    teacher_probability = torch.tensor([[[[0.8, 0.2]]]], dtype=torch.float64)
    student = student_probability.log().requires_grad_()
    scores = TokenScores(
        student_logprob=student[:, 0, :, 0],
        teacher_logprob=teacher_probability.log()[..., 0],
        completion_mask=torch.ones(1, 1) > 0,
        loss_mask=torch.ones(1, 1) > 0,
        context_weight=torch.ones(1, 1, dtype=torch.float64),
        group=torch.zeros(1, dtype=torch.int64),
        step_index=torch.zeros(1, 1, dtype=torch.int64),
        sampled_logprob=torch.zeros(1, 1),
        support=SupportScores(
            teacher_logprob=teacher_probability.log(),
            student_logprob=student,
            target_slot=torch.zeros(1, 1, 1, dtype=torch.int64),
        ),
    )
    result = GatedPolarity(support_top_k=1)(scores, verdicts(1))
    divergence = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert result.loss.item() == pytest.approx(math.log(2) - math.log(1 + math.exp(-divergence * divergence / 2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate_temperature": 0.0}, "gate_temperature must be above 0; got 0.0"),
        ({"log_ratio_clip": -1.0}, "log_ratio_clip must be above 0; got -1.0"),
        ({"stance_threshold": -0.1}, "stance_threshold must be 0 or more; got -0.1"),
        ({"support_top_k": 0}, r"support_top_k must be -1 \(full vocabulary\) or above 0; got 0"),
        ({"polarity": "random"}, "polarity must be one of .* got 'random'"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedPolarity(**settings)
