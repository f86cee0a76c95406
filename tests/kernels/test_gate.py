"""The gate, stance, polarity and c_t: every layout and implementation against the textbook form and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sgsd_kernels import gate, gated_loss, gated_polarity, ragged_gated_polarity
from torch import Tensor

from tests.kernels.gate_cases import (
    HEAD,
    IMPLEMENTATIONS,
    LAYOUTS,
    MEASURED,
    PACKED,
    PADDED,
    SETTINGS,
    Layout,
    double,
    logprobs,
)
from tests.support.pairwise import Apart, grid

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SIZES: list[Any] = [
    Apart(([1], 1)),
    ([17, 17, 17], 8),
    ([0, 7, 1, 130], 5),
    ([300, 2], 3),
    Apart(([0, 0], 3)),
    Apart(([4, 5], 0)),
    Apart(([], 2)),
]
"""(tokens of each rollout, teachers)."""


@grid(
    {
        "layout": [pytest.param(layout, id=layout.name) for layout in LAYOUTS],
        "implementation": [Apart("reference"), *IMPLEMENTATIONS[1:]],
        "settings": SETTINGS,
        "lengths, num_contexts": SIZES,
    }
)
def test_loss_gradients_and_measurements_equal_the_textbook_form(
    layout: Layout, implementation: Any, settings: dict[str, Any], lengths: list[int], num_contexts: int
) -> None:
    lengths = [min(length, layout.longest) for length in lengths]
    inputs, upstream = layout.example(lengths, num_contexts), torch.randn(len(lengths))
    loss, measured, wanted = layout.by_hand(inputs, upstream, **settings)
    if sum(lengths) > 9 and num_contexts:
        assert loss.abs().max() > 1e-4
    actual, found = layout.run(inputs, upstream, **settings, implementation=implementation)
    rounding = {"rtol": 10 * layout.rounding, "atol": layout.rounding}
    torch.testing.assert_close(actual.rollout_loss.double(), loss, **rounding)
    for name, value in measured.items():
        torch.testing.assert_close(
            getattr(actual, name).double(), value, **rounding, msg=lambda m, name=name: f"{name}: {m}"
        )
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.double() - theirs).norm() <= 20 * layout.rounding * theirs.norm()
    assert actual.token_coefficient.shape == inputs["loss_mask"].shape
    if layout in (PADDED, PACKED):
        per_token = upstream.repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
        torch.testing.assert_close(found[0], per_token * actual.token_coefficient, rtol=1e-6, atol=1e-7)


@grid(
    {
        "layout": [pytest.param(layout, id=layout.name) for layout in LAYOUTS[:3]],
        "implementation": IMPLEMENTATIONS,
        "poison": [math.nan, math.inf, -math.inf],
    }
)
def test_what_stands_at_masked_positions_and_absent_contexts_has_no_effect(
    layout: Layout, implementation: Any, poison: float
) -> None:
    if layout is HEAD and implementation == "reference":
        poison = 1e3  # autograd through whole logits multiplies 0 by what is not a number
    inputs = layout.example([5, 2, 4], 3)
    dirty = {name: value.clone() for name, value in inputs.items()}
    student, teacher = [name for name in dirty if name.startswith(("student", "teacher"))]
    dirty[student][~inputs["loss_mask"]] = poison
    dirty[teacher][:, ~inputs["loss_mask"]] = poison
    dirty[teacher][1, :5] = poison  # context 1 of rollout 0 is not there
    if "targets" in dirty:
        dirty["targets"][~inputs["loss_mask"]] = -1
    upstream = torch.randn(3)
    clean, expected = layout.run(inputs, upstream, implementation=implementation)
    output, gradients = layout.run(dirty, upstream, implementation=implementation)
    for name in ("rollout_loss", "token_coefficient", *MEASURED):
        assert torch.equal(getattr(output, name), getattr(clean, name)), name
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_empty_mask_gives_zero_loss_and_gradients(implementation: Any, layout: Layout) -> None:
    inputs = layout.example([5, 3], 3)
    inputs["loss_mask"].fill_(False)
    output, gradients = layout.run(inputs, torch.ones(2), implementation=implementation)
    assert (output.rollout_loss == 0).all()
    assert (output.polarity == 0).all()
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_judgement_means_no_polarity_unless_all_are_imitated(implementation: Any, layout: Layout) -> None:
    inputs = layout.example([5, 2, 4], 3)
    inputs["outcome"].zero_()
    is_there = inputs["context_weight"] != 0
    assert (layout.gate(inputs, implementation=implementation).rollout_loss == 0).all()
    output = layout.gate(inputs, implementation=implementation, polarity="imitate")
    assert torch.equal(output.polarity, is_there.to(output.polarity.dtype))


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_coefficients_do_not_depend_on_what_learns(implementation: Any, layout: Layout) -> None:
    inputs = layout.example([5, 2, 4], 3)
    learning, _ = layout.run(inputs, torch.ones(3), implementation=implementation)
    assert learning.token_coefficient.abs().sum() > 0
    with torch.no_grad():
        output = layout.gate(inputs, implementation=implementation)
    assert torch.equal(output.token_coefficient, learning.token_coefficient)


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=str)
@pytest.mark.parametrize("implementation", ["chunked", "triton"])
def test_a_second_derivative_is_refused(implementation: Any, layout: Layout) -> None:
    inputs = layout.example([2, 3], 2)
    leaf = inputs[layout.learning[0]].requires_grad_()
    loss = layout.gate(inputs, implementation=implementation).rollout_loss.sum()
    with pytest.raises(RuntimeError, match="has no second derivative"):
        torch.autograd.grad(loss, leaf, create_graph=True)


@pytest.mark.parametrize("polarity", ["validated", "imitate"])
@pytest.mark.parametrize("layout", [PADDED, PACKED], ids=str)
def test_finite_differences_agree_with_the_closed_form(layout: Layout, polarity: Any) -> None:
    inputs = double(layout.example([6, 3, 5], 4))
    student = inputs.pop("student_logprob").requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logprob: layout.gate({"student_logprob": logprob, **inputs}, polarity=polarity).rollout_loss, (student,)
    )


def test_float32_agrees_with_float64() -> None:
    inputs = logprobs([17, 9, 12], 8)
    actual, expected = ragged_gated_polarity(**inputs), ragged_gated_polarity(**double(inputs))
    assert actual.rollout_loss.dtype == torch.float32
    assert expected.rollout_loss.dtype == torch.float64
    torch.testing.assert_close(actual.rollout_loss.double(), expected.rollout_loss, rtol=0, atol=1e-6)
    torch.testing.assert_close(actual.token_coefficient.double(), expected.token_coefficient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_token_by_hand(implementation: Any) -> None:
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
        implementation=implementation,
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


@pytest.mark.parametrize("implementation", ["chunked", "triton"])
def test_small_log_ratios_keep_their_digits(implementation: Any) -> None:
    """l(r) = r^2 / 4 tau - r^4 / 32 tau^2 + O(r^8), where the textbook form has none left in float32."""
    log_ratio = torch.tensor([1e-3, 1e-2, 0.1])
    output = gated_polarity(
        -torch.ones(3, 1),
        (log_ratio - 1).view(3, 1, 1),
        torch.ones(3, 1, dtype=torch.bool),
        torch.ones(3, 1),
        torch.ones(3),
        implementation=implementation,
    )
    r = (log_ratio - 1 + 1).double()
    torch.testing.assert_close(output.gated_loss[:, 0].double(), r**2 / 4 - r**4 / 32, rtol=2e-6, atol=0)


@pytest.mark.parametrize("extreme", [1e4, 1e25, math.inf])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_extreme_teacher_closes_the_gate_without_nan(implementation: Any, extreme: float) -> None:
    inputs = padded(1, 2, 3)
    inputs["teacher_logprob"][0, 0, 0] = -extreme
    inputs["loss_mask"].fill_(True)
    output = gated_polarity(**inputs, implementation=implementation)
    assert output.rollout_loss.isfinite().all()
    assert output.token_coefficient.isfinite().all()
    assert output.stance_score.isfinite().all()


def padded(
    num_rollouts: int, num_contexts: int, num_tokens: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Inputs of `gated_polarity`: every outcome, masked tokens, all contexts there."""
    return {
        "student_logprob": (-torch.rand(num_rollouts, num_tokens) * 3).to(dtype),
        "teacher_logprob": (-torch.rand(num_rollouts, num_contexts, num_tokens) * 3).to(dtype),
        "loss_mask": torch.rand(num_rollouts, num_tokens) > 0.3,
        "context_weight": torch.rand(num_rollouts, num_contexts) + 0.1,
        "outcome": torch.tensor([1.0, -1.0, 0.0]).repeat(num_rollouts)[:num_rollouts],
    }


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_token_that_the_student_rules_out_adds_log_2_and_no_gradient(implementation: Any) -> None:
    student = torch.tensor([[-math.inf, -1.0]], requires_grad=True)
    output = gated_polarity(
        student,
        torch.tensor([[[-2.0, -1.0]]]),
        torch.ones(1, 2, dtype=torch.bool),
        torch.ones(1, 1),
        torch.ones(1),
        implementation=implementation,
    )
    (gradient,) = torch.autograd.grad(output.rollout_loss.sum(), student)
    torch.testing.assert_close(output.rollout_loss, torch.tensor([math.log(2) / 2]))
    assert (gradient == 0).all()


def test_an_absent_context_is_neutral_and_leaves_the_others_alone() -> None:
    inputs = padded(3, 4, 9, torch.float64)
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


def test_the_order_of_the_teachers_does_not_matter() -> None:
    inputs = padded(3, 8, 17)
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


@pytest.mark.parametrize("threshold", [0.25, 0.0])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_score_on_the_threshold_is_neutral(implementation: Any, threshold: float) -> None:
    output = gated_polarity(
        torch.zeros(1, 1, dtype=torch.float32),
        torch.full((1, 1, 1), threshold, dtype=torch.float32),
        torch.ones(1, 1, dtype=torch.bool),
        torch.ones(1, 1),
        torch.ones(1),
        stance_threshold=threshold,
        implementation=implementation,
    )
    assert output.polarity.item() == 0


def test_the_kernel_writes_every_output(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = logprobs([5, 0, 270], 3)
    clean = ragged_gated_polarity(**inputs, implementation="triton")
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(torch.nan))
    output = ragged_gated_polarity(**inputs, implementation="triton")
    for name in ("rollout_loss", *MEASURED):
        assert torch.equal(getattr(output, name), getattr(clean, name)), name


def test_the_packed_kernel_gives_the_bits_of_the_padded_one() -> None:
    inputs = padded(3, 4, 9)
    packed = {
        **inputs,
        "student_logprob": inputs["student_logprob"].flatten(),
        "teacher_logprob": inputs["teacher_logprob"].transpose(0, 1).flatten(1),
        "loss_mask": inputs["loss_mask"].flatten(),
        "rollout_offsets": torch.arange(4) * 9,
    }
    expected = gated_polarity(**inputs, implementation="triton")
    output = ragged_gated_polarity(**packed, implementation="triton")
    assert torch.equal(output.rollout_loss, expected.rollout_loss)
    assert torch.equal(output.token_coefficient, expected.token_coefficient.flatten())


def test_bfloat16_logprobs_are_read_as_float32() -> None:
    inputs = logprobs([5, 3], 3)
    for name in ("student_logprob", "teacher_logprob"):
        inputs[name] = inputs[name].bfloat16()
    loss, measured, _ = PACKED.by_hand(inputs, torch.ones(2))
    actual, (gradient,) = PACKED.run(inputs, torch.ones(2), implementation="triton")
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(actual.rollout_loss.double(), loss, rtol=2e-6, atol=2e-7)
    for name, value in measured.items():
        torch.testing.assert_close(getattr(actual, name).double(), value, rtol=2e-6, atol=2e-7)


@pytest.mark.on_cpu
def test_float64_stays_with_torch() -> None:
    with pytest.raises(ValueError, match="its kernels compute in float32"):
        gated_polarity(**padded(1, 1, 1, torch.float64), implementation="triton")


@pytest.mark.on_cpu
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
        gated_polarity(**{**padded(2, 3, 5), **change})


@pytest.mark.on_cpu
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollout_offsets": torch.tensor([0, 3, 2])}, r"rollout_offsets must rise from 0 to M = 5; got \[0, 3, 2\]"),
        ({"rollout_offsets": torch.tensor([0, 3, 4])}, r"rise from 0 to M = 5; got \[0, 3, 4\]"),
        ({"student_logprob": torch.zeros(4)}, r"student's tokens must be \[M\].*got \[4\] and \[2, 5\]"),
        ({"teacher_logprob": torch.zeros(2, 4)}, r"teachers' \[K, M\] with loss_mask's M = 5; got \[5\] and \[2, 4\]"),
        ({"context_weight": torch.ones(2, 3)}, r"context_weight must be \[B, K\].*got \[2, 3\] and \[2\]"),
        ({"outcome": torch.ones(3)}, r"with 2 rollouts and 2 contexts.*got \[2, 2\] and \[3\]"),
        ({"gate_temperature": 0.0}, "gate_temperature must be above 0"),
    ],
)
def test_bad_packed_input_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    inputs = logprobs([3, 2], 2)
    with pytest.raises(ValueError, match=message):
        ragged_gated_polarity(**{**inputs, **change})
