"""How near float64 log-probabilities are on tensor cores that truncate, by a model of them, at each width's bound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.head_cases import logprob_bound
from tests.support.tensor_cores import truncating_product

pytestmark = pytest.mark.on_cpu


def logprob(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("width", [64, 256, 1024, 2048])
@pytest.mark.parametrize("spread", [4.0, 9.0])
def test_truncating_accumulation_keeps_the_bound_of_the_width(width: int, spread: float) -> None:
    """Logits of standard deviation 4 are a model's; of 9, more than one's. Rows are a student and a teacher."""
    hidden = (torch.randn(2, width) * spread / width**0.5).bfloat16()
    weight = torch.randn(384, width).bfloat16()
    exact = logprob((hidden.double() @ weight.double().T).repeat_interleave(384, 0), torch.arange(384).repeat(2))
    found = logprob(truncating_product(hidden, weight).float().repeat_interleave(384, 0), torch.arange(384).repeat(2))
    error = found.double() - exact
    bound = logprob_bound(width)
    assert error.abs().max() <= bound
    student, teacher = error.chunk(2)
    assert (teacher - student).abs().max() <= bound
    assert error.abs().max() > bound / 20  # the bound is not far from what is lost
