"""Inputs for the tests of the divergence, and the float64 answers to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sgsd_kernels import linear_divergence
from sgsd_kernels.divergence.function import linear_divergence_by
from sgsd_kernels.divergence.passes import DivergencePasses, DivergenceRows, TeacherHead, without_targets
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadRows
from torch import Tensor

KINDS: list[dict[str, Any]] = [
    {"kind": "forward_kl"},
    {"kind": "reverse_kl"},
    {"kind": "jsd", "beta": 0.5},
    {"kind": "jsd", "beta": 0.1},
]
LEARNING = ("student_hidden", "weight", "bias")


def example(
    num_rows: int,
    width: int,
    vocab_size: int,
    *,
    num_teachers: int = 1,
    own_head: bool = False,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """A student, its teachers ([N, D] where there is one), head and bias; and with ``own_head`` a wider one."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    teacher_width = width + 8 if own_head else width
    teachers = normal(num_teachers, num_rows, teacher_width)
    inputs = {
        "student_hidden": normal(num_rows, width),
        "teacher_hidden": teachers[0] if num_teachers == 1 else teachers,
        "weight": (normal(vocab_size, width) / width**0.5 * 2).to(dtype),
        "bias": normal(vocab_size),
    }
    if num_teachers > 1:
        inputs["mixture_weights"] = torch.rand(num_rows, num_teachers).softmax(-1)
    if own_head:
        inputs["teacher_weight"] = (normal(vocab_size, teacher_width) / teacher_width**0.5 * 2).to(dtype)
        inputs["teacher_bias"] = normal(vocab_size)
    return inputs


def double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def run(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], upstream: Tensor, **options: Any
) -> tuple[Tensor, list[Tensor]]:
    """The divergences, and the gradients of upstream . divergence in student_hidden, weight and bias."""
    leaves = {name: value.detach().requires_grad_(name in LEARNING) for name, value in inputs.items()}
    value = function(**leaves, **options)
    learning = [leaves[name] for name in LEARNING if name in leaves]
    return value.detach(), list(torch.autograd.grad(value, learning, upstream.to(value.dtype)))


def half_precision_rows(inputs: dict[str, Tensor], divergence: Divergence) -> DivergenceRows:
    """Rows of `example` with a head of the teachers' own, which keep their dtype.

    `DivergenceRows.select` casts half precision where there are no tensor cores.
    """
    teacher = TeacherHead.of(
        inputs["teacher_hidden"], inputs["teacher_weight"], inputs["teacher_bias"], inputs.get("mixture_weights")
    )
    hidden, flat = inputs["student_hidden"], teacher.hidden.flatten(0, 1)
    assert teacher.weight is not None
    options = HeadOptions()
    return DivergenceRows(
        HeadRows(hidden, without_targets(hidden), inputs["weight"], inputs["bias"], options),
        HeadRows(flat, without_targets(flat), teacher.weight, teacher.bias, options),
        teacher.log_weight,
        divergence,
    )


def expected(inputs: dict[str, Tensor], upstream: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """What the definition says in float64."""
    return run(linear_divergence, double(inputs), upstream, implementation="reference", **options)


def by(passes: DivergencePasses) -> Callable[..., Tensor]:
    """`linear_divergence` by the given passes, without its checks."""

    def function(
        student_hidden: Tensor,
        teacher_hidden: Tensor,
        weight: Tensor,
        *,
        bias: Tensor | None = None,
        teacher_weight: Tensor | None = None,
        teacher_bias: Tensor | None = None,
        mixture_weights: Tensor | None = None,
        mask: Tensor | None = None,
        temperature: float = 1.0,
        softcap: float | None = None,
        vocab_limit: int | None = None,
        **divergence: Any,
    ) -> Tensor:
        teacher = TeacherHead.of(teacher_hidden, teacher_weight, teacher_bias, mixture_weights)
        options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
        return linear_divergence_by(
            passes, student_hidden, weight, bias, teacher, options, Divergence(**divergence), mask
        )

    return function


def assert_close(
    actual: tuple[Tensor, list[Tensor]], wanted: tuple[Tensor, list[Tensor]], value_error: float, gradient_error: float
) -> None:
    """Values within ``value_error``, gradients within ``gradient_error`` of their largest entry or of 0.01."""
    torch.testing.assert_close(actual[0].double(), wanted[0], rtol=value_error, atol=value_error)
    for ours, theirs in zip(actual[1], wanted[1], strict=True):
        if theirs.numel():
            error = (ours.double() - theirs).abs().max()
            assert error <= gradient_error * theirs.abs().max().clamp(min=1e-2), (error, theirs.abs().max())
