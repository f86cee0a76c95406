"""The gate, stance, polarity and c_t against hand arithmetic, autograd and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sgsd_kernels import gate, gated_loss, gated_polarity
from torch import Tensor


def example(num_rollouts: int, num_contexts: int, length: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Log-probabilities a nat or two apart, some masked tokens, outcomes of each kind."""
    return {
        "student_logprob": torch.randn(num_rollouts, length, dtype=torch.float64).to(dtype) - 2,
        "teacher_logprob": torch.randn(num_rollouts, num_contexts, length, dtype=torch.float64).to(dtype) * 2 - 2,
        "loss_mask": torch.rand(num_rollouts, length) < 0.8,
        "context_weight": torch.rand(num_rollouts, num_contexts, dtype=torch.float64).to(dtype) + 0.1,
        "outcome": torch.tensor([1, -1, 0]).repeat(num_rollouts)[:num_rollouts],
    }


def textbook_rollout_loss(inputs: dict[str, Tensor], tau: float, clip: float, threshold: float) -> Tensor:
    """The definition, left to autograd."""
    log_ratio = inputs["teacher_logprob"] - inputs["student_logprob"].unsqueeze(1)
    mask = inputs["loss_mask"].unsqueeze(1).to(log_ratio.dtype)
    num_tokens = mask.sum(-1).clamp(min=1)
    score = (log_ratio.detach().clamp(-clip, clip) * mask).sum(-1) / num_tokens
    polarity = inputs["outcome"].unsqueeze(1) * score.sign() * (score.abs() > threshold)
    loss = math.log(2) - torch.log(1 + torch.exp(-(log_ratio**2) / (2 * tau)))
    return (inputs["context_weight"] * polarity * (loss * mask).sum(-1) / num_tokens).sum(-1)


def test_one_token_by_hand() -> None:
    """r = 1 and -2: mean -0.5, so the teacher dislikes a right answer: misleading."""
    output = gated_polarity(
        torch.tensor([[-2.0, -1.0, -5.0]], requires_grad=True),
        torch.tensor([[[-1.0, -3.0, -9.0]]]),
        torch.tensor([[True, True, False]]),
        torch.tensor([[0.5]]),
        torch.tensor([1]),
        gate_temperature=2.0,
        log_ratio_clip=1.5,
        stance_threshold=0.05,
    )
    loss = [math.log(2) - math.log(1 + math.exp(-x)) for x in (1 / 4, 1.0)]
    slope = [r / 2 / (1 + math.exp(x)) for r, x in ((1.0, 1 / 4), (-2.0, 1.0))]
    assert output.stance_score.item() == pytest.approx((1 - 1.5) / 2)
    assert output.raw_stance_score.item() == pytest.approx(-0.5)
    assert (output.stance.item(), output.polarity.item()) == (-1, -1)
    assert output.clipped_token_frac.item() == 0.5
    assert output.gated_loss.item() == pytest.approx(sum(loss) / 2)
    assert output.rollout_loss.item() == pytest.approx(-0.5 * sum(loss) / 2)
    assert output.token_coefficient[0].tolist() == pytest.approx([0.5 * slope[0] / 2, 0.5 * slope[1] / 2, 0])


@pytest.mark.parametrize("settings", [(1.0, 3.0, 0.05), (0.25, 1.0, 0.3), (3.0, 0.5, 0.0)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 17), (4, 2, 5), (2, 0, 5), (2, 3, 0), (0, 2, 3)])
def test_loss_and_gradient_equal_the_textbook_form(shape: tuple[int, int, int], settings: tuple[float, ...]) -> None:
    inputs = example(*shape)
    student = inputs["student_logprob"].requires_grad_()
    upstream = torch.randn(shape[0], dtype=torch.float64)
    expected = textbook_rollout_loss(inputs, *settings)
    names = ("gate_temperature", "log_ratio_clip", "stance_threshold")
    output = gated_polarity(**inputs, **dict(zip(names, settings, strict=True)))
    torch.testing.assert_close(output.rollout_loss, expected, rtol=1e-12, atol=1e-12)
    (expected_gradient,) = torch.autograd.grad(expected @ upstream, student, materialize_grads=True)
    (gradient,) = torch.autograd.grad(output.rollout_loss @ upstream, student)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, upstream.unsqueeze(1) * output.token_coefficient)


@pytest.mark.parametrize("polarity", ["validated", "imitate"])
def test_finite_differences_agree_with_the_closed_form(polarity: Any) -> None:
    inputs = example(3, 4, 6)
    student = inputs.pop("student_logprob").requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logprob: gated_polarity(logprob, **inputs, polarity=polarity).rollout_loss, (student,)
    )


def test_float32_keeps_its_digits_where_student_and_teacher_nearly_agree() -> None:
    log_ratio = torch.tensor([1e-3, -1e-3, 1e-2, 0.3, 5.0])
    exact = [
        math.log(2) - math.log1p(math.exp(-(r**2) / 2)) if abs(r) > 0.1 else r**2 / 4 - r**4 / 32
        for r in log_ratio.tolist()
    ]
    torch.testing.assert_close(gated_loss(log_ratio, 1.0), torch.tensor(exact), rtol=1e-5, atol=0)


def test_gate_is_half_at_agreement_and_closes_far_from_it() -> None:
    values = gate(torch.tensor([0.0, 1.0, -1.0, 30.0]), 0.5)
    expected = torch.tensor([0.5, 1 / (1 + math.e), 1 / (1 + math.e), 0.0])
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("extreme", [1e4, 1e25, math.inf])
def test_an_extreme_teacher_closes_the_gate_without_nan(extreme: float) -> None:
    inputs = example(1, 2, 3, torch.float32)
    inputs["teacher_logprob"][0, 0, 0] = -extreme
    inputs["loss_mask"].fill_(True)
    output = gated_polarity(**inputs)
    assert output.rollout_loss.isfinite().all()
    assert output.token_coefficient.isfinite().all()
    assert output.stance_score.isfinite().all()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_stands_at_masked_positions_and_absent_contexts_has_no_effect(poison: float) -> None:
    inputs = example(3, 4, 9)
    inputs["context_weight"][1, 2] = 0
    clean = gated_polarity(**inputs)
    dirty = {name: value.clone() for name, value in inputs.items()}
    dirty["student_logprob"][~inputs["loss_mask"]] = poison
    dirty["teacher_logprob"].transpose(1, 2)[~inputs["loss_mask"]] = poison
    dirty["teacher_logprob"][1, 2] = poison
    student = dirty["student_logprob"].requires_grad_()
    output = gated_polarity(**dirty)
    (gradient,) = torch.autograd.grad(output.rollout_loss.sum(), student)
    assert gradient.isfinite().all()
    for name in ("rollout_loss", "token_coefficient", "stance_score", "raw_stance_score", "polarity", "gated_loss"):
        assert torch.equal(getattr(output, name), getattr(clean, name)), name


def test_an_absent_context_is_neutral_and_leaves_the_others_alone() -> None:
    inputs = example(3, 4, 9)
    inputs["context_weight"][:, 1] = 0
    inputs["context_weight"][2] = 0
    rule_outputs = {rule: gated_polarity(**inputs, polarity=rule) for rule in ("validated", "imitate")}
    for output in rule_outputs.values():
        assert (output.polarity[:, 1] == 0).all()
        assert (output.polarity[2] == 0).all()
        assert output.rollout_loss[2] == 0
    kept = [0, 2, 3]
    without = {**inputs, "teacher_logprob": inputs["teacher_logprob"][:, kept]}
    without["context_weight"] = inputs["context_weight"][:, kept]
    torch.testing.assert_close(gated_polarity(**without).rollout_loss, rule_outputs["validated"].rollout_loss)


def test_an_empty_mask_gives_zero_loss_and_gradient() -> None:
    inputs = example(2, 3, 5)
    inputs["loss_mask"].fill_(False)
    student = inputs["student_logprob"].requires_grad_()
    output = gated_polarity(**inputs)
    output.rollout_loss.sum().backward()
    assert (output.rollout_loss == 0).all()
    assert (output.polarity == 0).all()
    assert (student.grad == 0).all()


def test_no_judgement_means_no_polarity_unless_all_are_imitated() -> None:
    inputs = example(3, 4, 9)
    inputs["outcome"].zero_()
    assert (gated_polarity(**inputs).rollout_loss == 0).all()
    assert (gated_polarity(**inputs, polarity="imitate").polarity == 1).all()


def test_the_order_of_the_teachers_does_not_matter() -> None:
    inputs = example(3, 8, 17, torch.float32)
    order = torch.randperm(8)
    permuted = {
        **inputs,
        "teacher_logprob": inputs["teacher_logprob"][:, order],
        "context_weight": inputs["context_weight"][:, order],
    }
    first, second = gated_polarity(**inputs), gated_polarity(**permuted)
    torch.testing.assert_close(second.rollout_loss, first.rollout_loss, rtol=0, atol=1e-6)
    torch.testing.assert_close(second.token_coefficient, first.token_coefficient, rtol=0, atol=1e-6)
    assert torch.equal(second.polarity, first.polarity[:, order])


def test_float32_agrees_with_float64() -> None:
    inputs = example(3, 8, 17, torch.float32)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    actual, expected = gated_polarity(**inputs), gated_polarity(**wide)
    assert actual.rollout_loss.dtype == torch.float32
    torch.testing.assert_close(actual.rollout_loss.double(), expected.rollout_loss, rtol=0, atol=1e-6)
    torch.testing.assert_close(actual.token_coefficient.double(), expected.token_coefficient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.05, 0.0])
def test_a_score_on_the_threshold_is_neutral(threshold: float) -> None:
    output = gated_polarity(
        torch.zeros(1, 1, dtype=torch.float64),
        torch.full((1, 1, 1), threshold, dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.bool),
        torch.ones(1, 1),
        torch.ones(1),
        stance_threshold=threshold,
    )
    assert output.polarity.item() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate_temperature": 0.0}, "gate_temperature must be above 0; got 0.0"),
        ({"gate_temperature": math.nan}, "gate_temperature must be above 0; got nan"),
        ({"log_ratio_clip": -1.0}, "log_ratio_clip must be above 0; got -1.0"),
        ({"stance_threshold": -0.1}, "stance_threshold must be 0 or more; got -0.1"),
        ({"polarity": "trust"}, "polarity must be one of validated, imitate; got 'trust'"),
        ({"student_logprob": torch.zeros(2, 4)}, r"loss_mask's shape \[B, T\] = \[2, 5\]; got \[2, 4\]"),
        ({"teacher_logprob": torch.zeros(2, 1, 5)}, r"\[B, K, T\] = \[2, 3, 5\]; got \[2, 1, 5\]"),
        ({"context_weight": torch.zeros(1, 3)}, r"the same B; got \[2, 5\] and \[1, 3\]"),
        ({"outcome": torch.zeros(1)}, r"outcome must be \[B\] with B = 2; got \[1\]"),
    ],
)
def test_bad_settings_and_shapes_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gated_polarity(**{**example(2, 3, 5), **change})


def test_a_second_derivative_is_refused() -> None:
    inputs = example(2, 3, 5)
    student = inputs["student_logprob"].requires_grad_()
    loss = gated_polarity(**inputs).rollout_loss.sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, student, create_graph=True)
