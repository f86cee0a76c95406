"""A real vocabulary, and matrices whose entries are more than 2^31 apart."""

from __future__ import annotations

import pytest
import torch
from sgsd_kernels import HeadOptions
from sgsd_kernels.head import reference
from sgsd_kernels.head.chunked import ChunkedPasses
from sgsd_kernels.head.cublas import CublasPasses
from sgsd_kernels.head.kernels import rows as row_kernels
from sgsd_kernels.head.passes import HeadPasses, HeadRows, Normalizer, RowStatistics, Upstream
from sgsd_kernels.head.triton import TritonPasses
from sgsd_kernels.triton_shared.configs import TileConfig
from torch import Tensor

from tests.kernels.kernel_passes import by_copy_engine, device_capability

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

INTERPRETED = device_capability() is None
# few wide tiles are quick to interpret; a device has neither the registers nor a copy engine for them
WIDE_TILES = TileConfig(16, 4096, 64, 4, 1, slices=2, num_splits=5) if INTERPRETED else None
TMA, POINTERS = TritonPasses(device_capability() or 90, tiles=WIDE_TILES), TritonPasses(80, tiles=WIDE_TILES)
VOCAB_SIZE = 151_936
FAR = 2**31 // 2 + 40_000  # entries between rows; three rows reach beyond 2^31
ALL_PASSES = [
    pytest.param(ChunkedPasses(), id="chunked"),
    by_copy_engine(TMA),
    pytest.param(POINTERS, id="pointers"),
    pytest.param(CublasPasses(), id="library"),
]


def rows_of(hidden: Tensor, weight: Tensor, targets: Tensor) -> HeadRows:
    return HeadRows(hidden, targets, weight, None, HeadOptions())


def spaced(values: Tensor) -> Tensor:
    """``values`` with rows `FAR` apart, in memory of which only the rows are ever touched."""
    apart = torch.empty_strided(values.shape, (FAR, 1), dtype=values.dtype)
    return apart.copy_(values)


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_logprob_and_log_ratio_of_a_real_vocabulary_are_within_1e_5(passes: HeadPasses) -> None:
    """bfloat16 inputs; the rows are a student and a teacher, so their difference is the log-ratio of the gate.

    Under the first distribution nearly all tokens are likely, under the second few are.
    """
    scale = torch.tensor([[0.05], [0.3]]).repeat(2, 1)
    hidden = (torch.randn(4, 64) * scale).bfloat16()
    weight = torch.randn(VOCAB_SIZE, 64).bfloat16()
    targets = torch.randint(VOCAB_SIZE, (2,)).repeat(2)
    statistics = passes.scan(rows_of(hidden, weight, targets), entropy=True)
    exact = reference.linear_logprob(hidden.double(), weight.double(), targets, entropy=True)
    logprob = statistics.logprob.double()
    torch.testing.assert_close(logprob, exact.logprob, rtol=0, atol=1e-5)
    torch.testing.assert_close(statistics.entropy.double(), exact.entropy, rtol=0, atol=1e-5)
    log_ratio = exact.logprob[2:] - exact.logprob[:2]
    torch.testing.assert_close(logprob[2:] - logprob[:2], log_ratio, rtol=0, atol=1e-5)


@pytest.mark.parametrize("passes", [by_copy_engine(TMA), pytest.param(POINTERS, id="pointers")])
def test_rows_and_head_may_be_further_apart_than_an_int32_reaches(passes: TritonPasses) -> None:
    hidden, weight = torch.randn(3, 16).bfloat16(), torch.randn(3, 16).bfloat16()
    targets = torch.tensor([0, 1, 2])
    near, far = rows_of(hidden, weight, targets), rows_of(spaced(hidden), spaced(weight), targets)
    statistics = passes.scan(near, entropy=False)
    assert torch.equal(passes.scan(far, entropy=False).logprob, statistics.logprob)
    normalizer = Normalizer(statistics.row_max, statistics.log_normalizer)
    upstream = Upstream(torch.ones(3), torch.zeros(3))
    span = next(near.vocabulary(3))
    assert torch.equal(
        passes.dlogits(far, span, normalizer, upstream), passes.dlogits(near, span, normalizer, upstream)
    )


def test_a_chunk_of_logits_may_hold_more_than_two_to_the_31_entries() -> None:
    logits, targets = torch.randn(3, 40), torch.tensor([0, 39, 5])
    rows = rows_of(torch.zeros(3, 1), torch.zeros(40, 1), targets)
    expected = reference.linear_logprob(logits.double(), torch.eye(40).double(), targets)
    running = RowStatistics.empty(3, False, torch.float32, logits.device)
    row_kernels.scan_rows_(running, spaced(logits), rows, slice(0, 40))
    torch.testing.assert_close(running.logprob.double(), expected.logprob, rtol=0, atol=2e-6)
    normalizer = Normalizer(running.row_max, running.log_normalizer)
    upstream = Upstream(torch.ones(3), torch.zeros(3))
    far = row_kernels.dlogits_rows(spaced(logits), rows, slice(0, 40), normalizer, upstream)
    onehot = torch.nn.functional.one_hot(targets, 40)
    torch.testing.assert_close(far.double(), onehot - logits.double().softmax(-1), rtol=0, atol=2e-6)
