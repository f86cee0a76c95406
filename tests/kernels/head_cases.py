"""Inputs of the head for the tests of this folder, and gradients by any function of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sgsd_kernels import HeadOptions, LogprobOutput
from sgsd_kernels.head.passes import HeadRows
from torch import Tensor


def example(num_rows: int, width: int, vocab_size: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Hidden states, head, bias and targets; every third row ignored."""
    targets = torch.randint(vocab_size, (num_rows,))
    targets[::3] = -100
    return {
        "hidden": torch.randn(num_rows, width, dtype=torch.float64).to(dtype),
        "weight": torch.randn(vocab_size, width, dtype=torch.float64).to(dtype),
        "targets": targets,
        "bias": torch.randn(vocab_size, dtype=torch.float64).to(dtype),
    }


def rows_of_width(width: int, num_rows: int = 8192, dtype: torch.dtype = torch.bfloat16) -> HeadRows:
    """Rows of which the sizes are looked at and nothing is read."""
    return HeadRows(
        torch.empty(num_rows, width, dtype=dtype, device="meta"),
        torch.empty(num_rows, dtype=torch.int64, device="meta"),
        torch.empty(151_936, width, dtype=dtype, device="meta"),
        None,
        HeadOptions(),
    )


def logprob_bound(width: int) -> float:
    """Of the error of log-probabilities in nats that kernels/README.md states for heads of a width.

    Tensor cores that truncate lose in each of the steps that a longer product has.
    """
    return max(1e-5, 1e-7 * width)


def double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def gradients(
    function: Callable[..., LogprobOutput], inputs: dict[str, Tensor], upstream: Tensor, **options: Any
) -> list[Tensor]:
    """Gradients of hidden, weight and bias of upstream[0] . logprob + upstream[1] . lse."""
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in inputs.items()}
    output = function(**leaves, **options)
    outputs = torch.stack([output.logprob, output.lse])
    learning = [leaves[name] for name in ("hidden", "weight", "bias")]
    return list(torch.autograd.grad((outputs * upstream.to(outputs.dtype)).sum(), learning))
