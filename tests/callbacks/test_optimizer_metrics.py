"""The gradient's norm, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sgsd_lightning.callbacks.optimizer_metrics import gradient_norm

CPU = torch.device("cpu")


def test_the_norm_is_that_of_torch_and_nothing_is_touched() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    model(torch.randn(4, 5)).square().sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    norm = gradient_norm(torch.optim.SGD(model.parameters(), lr=1.0), CPU)
    assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(model.parameters(), 1e9)), rel=1e-6)
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_sparse_absent_and_half_gradients_count_as_they_are() -> None:
    table, unused, half = nn.Embedding(4, 2, sparse=True), nn.Linear(1, 1), nn.Parameter(torch.ones(3).bfloat16())
    table(torch.tensor([1, 1])).sum().backward()  # 2 in each of two places
    half.grad = torch.full((3,), 2.0).bfloat16()
    optimizer = torch.optim.SGD([*table.parameters(), *unused.parameters(), half], lr=1.0)
    assert gradient_norm(optimizer, CPU) == pytest.approx((2 * 4 + 3 * 4) ** 0.5)
    assert gradient_norm(torch.optim.SGD(unused.parameters(), lr=1.0), CPU) == 0.0
