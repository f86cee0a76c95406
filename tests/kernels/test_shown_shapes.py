"""The tables and the example of kernels/README.md: every function takes and returns the shapes that stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from sgsd_kernels import (
    gated_polarity,
    gated_support,
    linear_divergence,
    linear_logprob,
    ragged_gated_polarity,
    support_logprob,
    teacher_support,
)
from torch import Tensor

README = Path(__file__).parents[2] / "kernels" / "README.md"
N, D, V, B, K, T, S = 6, 8, 20, 2, 3, 5, 4


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


def yes(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def ids(*shape: int) -> Tensor:
    return torch.randint(V, shape)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    section = README.read_text(encoding="utf-8").split("## Shapes")[1].split("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.split("torch.Size")[1:] == ["([2, 2]) ", "([7]) ", "([7, 16])\n"]


def test_functions_on_hidden_states() -> None:
    output = linear_logprob(random(N, D), random(V, D), ids(N), entropy=True)
    assert [tuple(entry.shape) for entry in output if entry is not None] == [(N,)] * 3
    support = teacher_support(random(N, D), random(V, D), ids(N), S - 1)
    assert [tuple(entry.shape) for entry in support] == [(N, S), (N, S), (N,), (N, S)]
    assert support_logprob(random(N, D), random(V, D), ids(N, K, S), yes(N, K, S)).shape == (N, K, S)
    for teacher, mixture in ((random(N, D), None), (random(K, N, D), torch.full((N, K), 1 / K))):
        found = linear_divergence(random(N, D), teacher, random(V, D), mixture_weights=mixture, mask=yes(N))
        assert found.shape == (N,)


def test_functions_on_log_probabilities() -> None:
    weight, outcome = torch.full((B, K), 1 / K), torch.tensor([1.0, -1.0])
    padded = gated_polarity(random(B, T), random(B, K, T), yes(B, T), weight, outcome)
    assert (padded.rollout_loss.shape, padded.stance.shape, padded.token_coefficient.shape) == ((B,), (B, K), (B, T))
    offsets = torch.tensor([0, 2, N])
    packed = ragged_gated_polarity(random(N), random(K, N), yes(N), offsets, weight, outcome)
    assert (packed.polarity.shape, packed.token_coefficient.shape) == ((B, K), (N,))
    slots = random(B, K, T, S).log_softmax(-1)
    local = gated_support(slots, slots, torch.zeros(B, K, T, dtype=torch.int64), yes(B, T), weight, outcome)
    assert local.token_coefficient.shape == (B, K, T, S)
