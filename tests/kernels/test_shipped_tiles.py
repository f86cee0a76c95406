"""The tiles that ship, by value: interpreted at small sizes that still use them, on a GPU at the width of a model."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from sgsd_kernels.divergence.kernels.operands import divergence_config
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.divergence.triton import TritonDivergence
from sgsd_kernels.head.function import linear_logprob_by
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadSpan
from sgsd_kernels.head.reference import LogprobOutput, linear_logprob
from sgsd_kernels.head.triton import TritonPasses
from sgsd_kernels.triton_shared.catalogue import CAPABILITIES
from sgsd_kernels.triton_shared.configs import dlogits_config, scan_config
from torch import Tensor

from tests.kernels import divergence_cases
from tests.kernels.head_cases import double, example, gradients, logprob_bound
from tests.kernels.kernel_passes import device_capability

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE_CAPABILITY = device_capability()
SHIPPED: list[Any] = [
    pytest.param(capability, marks=[] if capability == 90 else pytest.mark.slow)
    for capability in ([DEVICE_CAPABILITY] if DEVICE_CAPABILITY else CAPABILITIES)
]
WIDTH = 512 if DEVICE_CAPABILITY else 136
NUM_ROWS, VOCAB_SIZE = 130, 600
"""Two blocks of rows and more than two tiles of columns, none of them full."""


def by(passes: TritonPasses, **inputs: Any) -> LogprobOutput:
    hidden, weight, targets = (inputs.pop(name) for name in ("hidden", "weight", "targets"))
    options = {"options": HeadOptions(), "entropy": True, "ignore_index": -100}
    return linear_logprob_by(passes, hidden, weight, targets, **inputs, **options)


@pytest.mark.parametrize("capability", SHIPPED)
@pytest.mark.parametrize("allow_tma", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_tiles_of_the_head_give_float64_values_and_gradients(capability: int, allow_tma: bool) -> None:
    passes = TritonPasses(capability, allow_tma=allow_tma)
    inputs = example(NUM_ROWS, WIDTH, VOCAB_SIZE, torch.bfloat16)
    inputs["hidden"] /= WIDTH**0.5
    for config in (scan_config, dlogits_config):
        tiles = config(capability, torch.bfloat16, use_tma=allow_tma and capability >= 90)
        assert tiles.block_rows < NUM_ROWS
        assert 2 * tiles.block_columns < VOCAB_SIZE
        assert tiles.block_width < WIDTH
    for ours, theirs in zip(by(passes, **inputs), linear_logprob(**double(inputs), entropy=True), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=logprob_bound(WIDTH))
    upstream = torch.randn(2, NUM_ROWS)
    actual = gradients(functools.partial(by, passes), inputs, upstream)
    for mine, exact in zip(actual, gradients(linear_logprob, double(inputs), upstream), strict=True):
        assert (mine.double() - exact).norm() <= 1e-2 * exact.norm()


@pytest.mark.parametrize("capability", SHIPPED)
@pytest.mark.parametrize("num_teachers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_tiles_of_the_divergence_give_float64_values_and_gradients(capability: int, num_teachers: int) -> None:
    passes = TritonDivergence(TritonPasses(capability))
    tiles = divergence_config(capability, torch.bfloat16, use_tma=capability >= 90)
    rows, columns = tiles.block_rows + 2, 2 * tiles.block_columns + 6
    inputs = divergence_cases.example(
        rows, WIDTH, columns, num_teachers=num_teachers, own_head=True, dtype=torch.bfloat16
    )
    packed = divergence_cases.half_precision_rows(inputs, Divergence("jsd", beta=0.3))
    upstream = torch.randn(rows)
    value, (hidden_gradient, *_) = divergence_cases.expected(inputs, upstream, kind="jsd", beta=0.3)
    found = passes.measure(packed)
    torch.testing.assert_close(found.value.double(), value, rtol=5e-6, atol=5e-6)
    span = HeadSpan(slice(0, columns), inputs["weight"], None)
    dlogits: Tensor = passes.dlogits(packed, slice(0, rows), span, found, upstream)
    actual = dlogits.double() @ inputs["weight"].double()
    assert (actual - hidden_gradient).norm() <= 1e-2 * hidden_gradient.norm()
