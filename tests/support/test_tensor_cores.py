from __future__ import annotations

import torch

from tests.support.tensor_cores import truncating_product


def test_what_fits_into_the_accumulator_is_exact() -> None:
    left, right = torch.randint(-8, 8, (3, 64)).bfloat16(), torch.randint(-8, 8, (5, 64)).bfloat16()
    assert torch.equal(truncating_product(left, right), left.double() @ right.double().T)


def test_what_lies_below_the_guard_bits_is_cut_off_towards_zero() -> None:
    left = torch.zeros(1, 32)
    left[0, 0], left[0, 16] = 2.0**24, 1.0
    right = torch.ones(1, 32)
    right[0, 16] = 0.99609375
    assert truncating_product(left.bfloat16(), right.bfloat16()).item() == 2.0**24
    assert truncating_product(-left.bfloat16(), right.bfloat16()).item() == -(2.0**24)
