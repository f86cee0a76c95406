"""Shards of a vocabulary, merged, equal the whole one: values and gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from sgsd_kernels import HeadOptions, merge_statistics, reference, shard_gradients, shard_statistics
from torch import Tensor

from tests.kernels.head_cases import double, example, gradients

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

CUTS = [0, 40, 41, 129]
OPTIONS: dict[str, Any] = {"temperature": 0.7, "softcap": 5.0}


def shards(inputs: dict[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "hidden": inputs["hidden"],
            "targets": inputs["targets"],
            "weight": inputs["weight"][first:last],
            "bias": inputs["bias"][first:last],
            "first_column": first,
            "options": HeadOptions(**OPTIONS),
        }
        for first, last in itertools.pairwise(CUTS)
    ]


@pytest.mark.parametrize("implementation", ["chunked", "triton", "cublas"])
def test_shards_together_are_the_whole_vocabulary(implementation: Any) -> None:
    inputs = example(9, 16, CUTS[-1], torch.float32)
    inputs["targets"] = torch.tensor([0, 39, 40, 41, 128, 100, 7, 8, 40])
    parts = [shard_statistics(**shard, entropy=True, implementation=implementation) for shard in shards(inputs)]
    whole = merge_statistics(parts)
    expected = reference.linear_logprob(**double(inputs), **OPTIONS, entropy=True)
    for ours, theirs in zip((whole.logprob, whole.lse, whole.entropy), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=3e-6)

    upstream = torch.randn(2, 9)
    found = [
        shard_gradients(
            statistics=whole,
            grad_logprob=upstream[0],
            grad_lse=upstream[1],
            needs=(True, True, True),
            implementation=implementation,
            **shard,
        )
        for shard in shards(inputs)
    ]
    actual = (
        sum(part.hidden for part in found),
        torch.cat([part.weight for part in found]),
        torch.cat([part.bias for part in found]),
    )
    exact = gradients(reference.linear_logprob, double(inputs), upstream, **OPTIONS)
    for ours, theirs in zip(actual, exact, strict=True):
        assert (ours.double() - theirs).norm() <= 5e-6 * theirs.norm()


def test_a_shard_without_a_column_left_changes_nothing() -> None:
    inputs = example(5, 16, CUTS[-1], torch.float32)
    inputs["bias"][40] = -torch.inf  # all of the second shard
    inputs["targets"] = torch.tensor([0, 39, 128, 41, 5])
    whole = merge_statistics([shard_statistics(**shard, entropy=True) for shard in shards(inputs)])
    expected = reference.linear_logprob(**double(inputs), **OPTIONS, entropy=True)
    for ours, theirs in zip((whole.logprob, whole.lse, whole.entropy), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=3e-6)


def test_parts_of_two_kinds_are_refused() -> None:
    first, second, _ = shards(example(5, 16, CUTS[-1], torch.float32))
    parts = [shard_statistics(**first, entropy=True), shard_statistics(**second)]
    with pytest.raises(ValueError, match="parts of one kind; got 2, 1 with entropy"):
        merge_statistics(parts)
    with pytest.raises(ValueError, match="parts of one kind; got 0"):
        merge_statistics([])


def test_targets_of_another_length_are_refused() -> None:
    shard = shards(example(5, 16, CUTS[-1], torch.float32))[0]
    with pytest.raises(ValueError, match=r"targets must be \[N\] with hidden's N = 5; got \[4\]"):
        shard_statistics(**{**shard, "targets": torch.zeros(4, dtype=torch.int64)})
