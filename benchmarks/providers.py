"""What competes in a benchmark: a provider, what it promises, and when it cannot run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.cases import FORWARD, MODES, TRAINED, Inputs, Mode

Answer = Mapping[str, Tensor]
"""What a provider computed. ``grad_hidden`` and ``grad_weight`` are judged by relative L2, all else by the largest
absolute error."""

Run = Callable[[], Answer]
Build = Callable[[Inputs, Mode], Run]
Precision = Literal["float32", "bfloat16"]
"""``float32``: logits are not rounded and gradients accumulate in float32. ``bfloat16``: one of them is rounded."""

Question = Literal["rows", "sum"]
"""``rows``: each row has its own upstream gradient. ``sum``: only the sum over rows has one."""


def available_anywhere(device: torch.device) -> str | None:
    """Of a provider that runs on every device."""
    return None


@dataclass(frozen=True, slots=True)
class Provider:
    """One competitor of one kernel."""

    name: str
    build: Build
    """(inputs, mode) -> a function without arguments that does the work once. Built outside of the timed region."""
    modes: tuple[Mode, ...] = MODES
    why_unavailable: Callable[[torch.device], str | None] = available_anywhere
    """Why it cannot run on a device, None where it can."""
    precision: Precision = "float32"
    question: Question = "rows"
    note: str = ""


def differentiated(
    compute: Callable[[Tensor, Tensor], Answer],
    output: str,
    inputs: Inputs,
    mode: Mode,
    upstream: Tensor | None = None,
) -> Run:
    """A run of ``compute(student_hidden, weight)`` that adds the gradients of its ``output`` which ``mode`` asks for.

    Args:
        compute: Differentiable in what the mode lets learn; never called for backward in the mode ``forward``.
        output: The part of the answer that is differentiated.
        inputs: Where hidden and weight come from.
        mode: Which of them learn.
        upstream: The gradient of ``output``, of its shape; None for a scalar.
    """
    hidden = inputs.student_hidden.detach().requires_grad_(mode != FORWARD)
    weight = inputs.weight.detach().requires_grad_(mode == TRAINED)
    learning = {"grad_hidden": hidden, "grad_weight": weight}
    learning = {name: leaf for name, leaf in learning.items() if leaf.requires_grad}

    def run() -> Answer:
        answer = compute(hidden, weight)
        slope = None if upstream is None else upstream.to(answer[output].dtype)
        gradients = torch.autograd.grad(answer[output], list(learning.values()), slope) if learning else ()
        parts = {name: part.detach() for name, part in answer.items()}
        return {**parts, **dict(zip(learning, gradients, strict=True))}

    return run


def why_missing(package: str) -> str | None:
    """That a package is not installed, None where it is."""
    return None if importlib.util.find_spec(package) is not None else f"the package {package} is not installed"


def needs_cuda(package: str) -> Callable[[torch.device], str | None]:
    """For a peer whose kernels in ``package`` run on CUDA alone."""

    def why(device: torch.device) -> str | None:
        return why_missing(package) or (None if device.type == "cuda" else "its kernels need a CUDA device")

    return why


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, a chunk at a time so that large gradients need no large copies."""
    difference = scale = 0.0
    for part, truth in zip(found.reshape(-1).split(2**26), expected.reshape(-1).split(2**26), strict=True):
        truth = truth.double()
        difference += (part.double() - truth).square().sum().item()
        scale += truth.square().sum().item()
    return (difference / max(scale, 1e-300)) ** 0.5


def largest_error(found: Tensor, expected: Tensor) -> float:
    """max |found - expected|."""
    if found.numel() == 0:
        return 0.0
    return (found.double() - expected.double()).abs().max().item()


def errors_of(answer: Answer, truth: Answer) -> dict[str, float]:
    """The error of every part of ``truth``.

    Raises:
        ValueError: a part that is missing or has another shape.
    """
    errors = {}
    for name, expected in truth.items():
        found = answer.get(name)
        if found is None or found.shape != expected.shape:
            shape = "nothing" if found is None else str(list(found.shape))
            raise ValueError(f"{name} must have the shape {list(expected.shape)}; the provider returned {shape}")
        measure = relative_l2 if name.startswith("grad_") else largest_error
        errors[name] = measure(found.detach(), expected)
    return errors
