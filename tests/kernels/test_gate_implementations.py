"""Every implementation of the gate, padded and packed, against the definition in float64."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from sgsd_kernels import GatedPolarityOutput, gated_polarity, ragged_gated_polarity
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

IMPLEMENTATIONS = ["reference", "chunked", "triton", "cublas"]
FIELDS = [
    field.name
    for field in dataclasses.fields(GatedPolarityOutput)
    if field.name not in ("token_coefficient", "support_divergence", "support_size")
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"gate_temperature": 0.3, "log_ratio_clip": 0.8, "stance_threshold": 0.2},
    {"polarity": "imitate"},
]


def padded_example(num_rollouts: int, num_contexts: int, num_tokens: int) -> dict[str, Tensor]:
    """Float32 inputs with every outcome, masked tokens and an absent context."""
    weight = torch.rand(num_rollouts, num_contexts)
    if num_contexts > 2:
        weight[::2, 1] = 0
    return {
        "student_logprob": -torch.rand(num_rollouts, num_tokens) * 3,
        "teacher_logprob": -torch.rand(num_rollouts, num_contexts, num_tokens) * 3,
        "loss_mask": torch.rand(num_rollouts, num_tokens) > 0.3,
        "context_weight": weight,
        "outcome": torch.tensor([1.0, -1.0, 0.0]).repeat(num_rollouts)[:num_rollouts],
    }


def packed_example(lengths: list[int], num_contexts: int) -> dict[str, Tensor]:
    padded = padded_example(len(lengths), num_contexts, 1)
    total = sum(lengths)
    return {
        **padded,
        "student_logprob": -torch.rand(total) * 3,
        "teacher_logprob": -torch.rand(num_contexts, total) * 3,
        "loss_mask": torch.rand(total) > 0.3,
        "rollout_offsets": torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]),
    }


def exact(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def run(function: Any, inputs: dict[str, Tensor], upstream: Tensor, **settings: Any) -> tuple[Any, Tensor]:
    """The output and the gradient of upstream . rollout_loss in the student's log-probabilities."""
    student = inputs["student_logprob"].clone().requires_grad_()
    output = function(**{**inputs, "student_logprob": student}, **settings)
    loss = (output.rollout_loss * upstream.to(output.rollout_loss.dtype)).sum()
    return output, torch.autograd.grad(loss, student, allow_unused=True, materialize_grads=True)[0]


def assert_same(actual: GatedPolarityOutput, expected: GatedPolarityOutput) -> None:
    for name in FIELDS:
        ours, theirs = getattr(actual, name), getattr(expected, name)
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=2e-6, atol=2e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 17), (4, 3, 300), (2, 0, 5), (2, 3, 0), (0, 2, 3)])
def test_padded_rollouts_equal_the_definition(
    shape: tuple[int, int, int], settings: dict[str, Any], implementation: Any
) -> None:
    inputs, upstream = padded_example(*shape), torch.randn(shape[0])
    expected, wanted = run(gated_polarity, exact(inputs), upstream, **settings, implementation="reference")
    actual, found = run(gated_polarity, inputs, upstream, **settings, implementation=implementation)
    assert_same(actual, expected)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found, upstream.unsqueeze(1) * actual.token_coefficient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("lengths", "num_contexts"), [([3], 1), ([0, 7, 1, 130], 5), ([300, 2], 8), ([0, 0], 3), ([4, 5], 0), ([], 2)]
)
def test_packed_rollouts_equal_each_rollout_alone(
    lengths: list[int], num_contexts: int, settings: dict[str, Any], implementation: Any
) -> None:
    inputs, upstream = packed_example(lengths, num_contexts), torch.randn(len(lengths))
    actual, found = run(ragged_gated_polarity, inputs, upstream, **settings, implementation=implementation)
    assert actual.token_coefficient.shape == (sum(lengths),)
    bounds = inputs["rollout_offsets"].tolist()
    for row in range(len(lengths)):
        tokens = slice(bounds[row], bounds[row + 1])
        alone = {
            "student_logprob": inputs["student_logprob"][None, tokens],
            "teacher_logprob": inputs["teacher_logprob"][None, :, tokens],
            "loss_mask": inputs["loss_mask"][None, tokens],
            "context_weight": inputs["context_weight"][row : row + 1],
            "outcome": inputs["outcome"][row : row + 1],
        }
        expected, wanted = run(
            gated_polarity, exact(alone), upstream[row : row + 1], **settings, implementation="reference"
        )
        one = dataclasses.replace(actual, **{name: getattr(actual, name)[row : row + 1] for name in FIELDS})
        assert_same(one, expected)
        torch.testing.assert_close(found[None, tokens].double(), wanted, rtol=1e-5, atol=1e-7)


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
    inputs = padded_example(1, 2, 3)
    inputs["teacher_logprob"][0, 0, 0] = -extreme
    inputs["loss_mask"].fill_(True)
    output = gated_polarity(**inputs, implementation=implementation)
    assert output.rollout_loss.isfinite().all()
    assert output.token_coefficient.isfinite().all()
    assert output.stance_score.isfinite().all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_token_that_the_student_rules_out_adds_log_2_and_no_gradient(implementation: Any) -> None:
    output, gradient = run(
        gated_polarity,
        {
            "student_logprob": torch.tensor([[-math.inf, -1.0]]),
            "teacher_logprob": torch.tensor([[[-2.0, -1.0]]]),
            "loss_mask": torch.ones(1, 2, dtype=torch.bool),
            "context_weight": torch.ones(1, 1),
            "outcome": torch.ones(1),
        },
        torch.ones(1),
        implementation=implementation,
    )
    torch.testing.assert_close(output.rollout_loss, torch.tensor([math.log(2) / 2]))
    assert (gradient == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_coefficients_do_not_depend_on_what_learns(implementation: Any) -> None:
    inputs = padded_example(3, 4, 9)
    expected, _ = run(gated_polarity, exact(inputs), torch.ones(3), implementation="chunked")
    assert expected.token_coefficient.abs().sum() > 0
    with torch.no_grad():
        output = gated_polarity(**inputs, implementation=implementation)
    torch.testing.assert_close(output.token_coefficient.double(), expected.token_coefficient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_stands_at_masked_positions_and_absent_contexts_has_no_effect(implementation: Any, poison: float) -> None:
    inputs = padded_example(3, 4, 9)
    dirty = {name: value.clone() for name, value in inputs.items()}
    dirty["student_logprob"][~inputs["loss_mask"]] = poison
    dirty["teacher_logprob"].transpose(1, 2)[~inputs["loss_mask"]] = poison
    dirty["teacher_logprob"][inputs["context_weight"] == 0] = poison
    upstream = torch.randn(3)
    clean, expected = run(gated_polarity, inputs, upstream, implementation=implementation)
    output, gradient = run(gated_polarity, dirty, upstream, implementation=implementation)
    assert torch.equal(gradient, expected)
    for name in FIELDS:
        assert torch.equal(getattr(output, name), getattr(clean, name)), name


def test_the_kernel_writes_every_output(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = packed_example([5, 0, 270], 3)
    clean = ragged_gated_polarity(**inputs, implementation="triton")
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(torch.nan))
    output = ragged_gated_polarity(**inputs, implementation="triton")
    for name in FIELDS:
        assert torch.equal(getattr(output, name), getattr(clean, name)), name


def test_the_packed_kernel_gives_the_bits_of_the_padded_one() -> None:
    inputs = padded_example(3, 4, 9)
    packed = {
        **inputs,
        "student_logprob": inputs["student_logprob"].flatten(),
        "teacher_logprob": inputs["teacher_logprob"].transpose(0, 1).flatten(1),
        "loss_mask": inputs["loss_mask"].flatten(),
        "rollout_offsets": torch.arange(4) * 9,
    }
    padded = gated_polarity(**inputs, implementation="triton")
    output = ragged_gated_polarity(**packed, implementation="triton")
    assert torch.equal(output.rollout_loss, padded.rollout_loss)
    assert torch.equal(output.token_coefficient, padded.token_coefficient.flatten())


def test_bfloat16_logprobs_are_read_as_float32() -> None:
    inputs = padded_example(2, 3, 5)
    inputs["student_logprob"] = inputs["student_logprob"].bfloat16()
    inputs["teacher_logprob"] = inputs["teacher_logprob"].bfloat16()
    actual, gradient = run(gated_polarity, inputs, torch.ones(2), implementation="triton")
    assert gradient.dtype == torch.bfloat16
    assert_same(actual, gated_polarity(**exact(inputs), implementation="reference"))


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
    inputs = packed_example([3, 2], 2)
    with pytest.raises(ValueError, match=message):
        ragged_gated_polarity(**{**inputs, **change})


def test_float64_stays_with_torch() -> None:
    with pytest.raises(ValueError, match="its kernels compute in float32"):
        gated_polarity(**exact(padded_example(1, 1, 1)), implementation="triton")
