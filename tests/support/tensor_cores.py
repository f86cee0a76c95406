"""What Hopper's tensor cores make of a product, emulated: sums are truncated, not rounded."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 16
"""Products that one instruction adds to an accumulator."""
GUARD_BITS = 2


def truncating_product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` [N, V] of half-precision factors [N, D] and [V, D], as a tensor core accumulates it.

    Each step aligns 16 exact products and the accumulator to the largest of them, cuts off what lies more than
    `GUARD_BITS` below float32's last place, adds, and cuts the sum to float32 towards 0. D must be a multiple of 16.
    """
    left, right = left.double(), right.double()
    total = torch.zeros(len(left), len(right), 1, dtype=torch.float64)
    for first in range(0, left.shape[1], STEP):
        step = slice(first, first + STEP)
        terms = torch.cat([left[:, None, step] * right[None, :, step], total], dim=-1)
        largest = terms.abs().amax(-1, keepdim=True)
        total = _cut(_cut(terms, largest, GUARD_BITS).sum(-1, keepdim=True))
    return total.squeeze(-1)


def _cut(values: Tensor, scale: Tensor | None = None, guard_bits: int = 0) -> Tensor:
    """``values`` towards 0 to the last place of float32 at ``scale`` (their own), with ``guard_bits`` more."""
    exponent = torch.frexp(values if scale is None else scale).exponent
    unit = torch.ldexp(torch.ones_like(values[..., :1]), exponent - 24 - guard_bits)
    return torch.trunc(values / unit) * unit
