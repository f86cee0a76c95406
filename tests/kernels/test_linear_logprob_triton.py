"""The Triton kernels and the library's product with its row kernel, in the interpreter where there is no GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sgsd_kernels import LogprobOutput, linear_logprob
from sgsd_kernels.head import gradients as gradients_module
from sgsd_kernels.head import reference
from sgsd_kernels.head.cublas import CublasPasses
from sgsd_kernels.head.function import linear_logprob_by
from sgsd_kernels.head.kernels import scan as scan_module
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadPasses
from sgsd_kernels.head.triton import TritonPasses
from sgsd_kernels.triton_shared import operands
from sgsd_kernels.triton_shared.configs import TileConfig
from sgsd_kernels.triton_shared.operands import can_use_tma
from torch import Tensor

from tests.kernels.head_cases import double, example, gradients
from tests.kernels.kernel_passes import by_copy_engine
from tests.support.pairwise import Apart, grid

# the interpreter computes what is not kept as well: polynomials far out, rows beyond the last
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILES = TileConfig(16, 32, 16, num_warps=4, num_stages=1, slices=2, group_rows=2, num_splits=3)
TMA = TritonPasses(capability=90, tiles=TILES)
POINTERS = TritonPasses(capability=80, tiles=TILES)
WHOLE_TILE = TritonPasses(capability=80, tiles=TileConfig(16, 16, 32, 4, 1, slices=1, group_rows=64, num_splits=50))
LIBRARY = CublasPasses(row_chunk=10, vocab_chunk=100)
ALL_PASSES = [
    by_copy_engine(TMA),
    pytest.param(POINTERS, id="pointers"),
    pytest.param(WHOLE_TILE, id="whole-tile"),
    pytest.param(LIBRARY, id="library"),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7, "softcap": 5.0},
    {"temperature": 1.3, "vocab_limit": 29},
]


def by(
    passes: HeadPasses, *, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None, **options: Any
) -> LogprobOutput:
    return linear_logprob_by(
        passes,
        hidden,
        weight,
        targets,
        bias=bias,
        options=HeadOptions(**options),
        entropy=True,
        ignore_index=-100,
    )


def poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``allocate`` with NaN in what it leaves unwritten."""

    def poisoned(*args: Any, **options: Any) -> Tensor:
        memory = allocate(*args, **options)
        return memory.fill_(torch.nan) if memory.is_floating_point() else memory

    return poisoned


def assert_near(actual: LogprobOutput, expected: LogprobOutput, tolerance: float) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance)


@grid(
    {
        "passes": ALL_PASSES,
        "options": OPTIONS,
        "num_rows, width, vocab_size, dtype": [
            Apart((1, 8, 33, torch.float32)),
            (17, 40, 129, torch.bfloat16),
            (19, 24, 257, torch.float16),
            (18, 9, 128, torch.bfloat16),
            (16, 64, 127, torch.float32),
        ],
    }
)
def test_values_and_gradients_equal_whole_float64_logits(
    passes: HeadPasses, options: dict[str, Any], num_rows: int, width: int, vocab_size: int, dtype: torch.dtype
) -> None:
    inputs = example(num_rows, width, vocab_size, dtype)
    inputs["targets"][1:2] = 28
    inputs["targets"].clamp_(max=28)
    exact = double(inputs)
    assert_near(by(passes, **inputs, **options), reference.linear_logprob(**exact, **options, entropy=True), 1e-5)
    upstream = torch.randn(2, num_rows)
    actual = gradients(functools.partial(by, passes), inputs, upstream, **options)
    expected = gradients(reference.linear_logprob, exact, upstream, **options)
    tolerance = {torch.float32: 5e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("passes", ALL_PASSES)
@pytest.mark.parametrize("vocab_size", [1, 2])
def test_a_vocabulary_of_one_or_two_tokens_works(passes: HeadPasses, vocab_size: int) -> None:
    inputs = example(5, 16, vocab_size, torch.bfloat16)
    assert_near(by(passes, **inputs), reference.linear_logprob(**double(inputs), entropy=True), 2e-6)


@pytest.mark.parametrize("passes", ALL_PASSES)
@pytest.mark.parametrize("offset", [-10000.0, -120.0, 80.0, 10000.0])
def test_logits_far_from_zero_cost_no_digits(passes: HeadPasses, offset: float) -> None:
    """Eighths are exact at every offset, so the exact answer is that without the offset."""
    logits = torch.randint(-40, 40, (7, 45)).float() / 8
    hidden, targets = torch.eye(7), torch.arange(7)
    output = by(passes, hidden=hidden, weight=(logits + offset).T.contiguous(), targets=targets)
    near = reference.linear_logprob(hidden.double(), logits.T.double(), targets, entropy=True)
    torch.testing.assert_close(output.logprob.double(), near.logprob, rtol=0, atol=2e-6)
    torch.testing.assert_close(output.entropy.double(), near.entropy, rtol=0, atol=2e-6)


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_a_spread_of_200_nats_and_removed_columns_stay_finite(passes: HeadPasses) -> None:
    """The removed columns fill the whole first split and a part of the second."""
    inputs = example(17, 8, 129, torch.float32)
    inputs["weight"] *= 40
    inputs["bias"][:70] = -torch.inf
    inputs["targets"] = torch.randint(70, 129, (17,))
    expected = reference.linear_logprob(**double(inputs), entropy=True)
    assert expected.logprob.min() < -200
    for ours, theirs in zip(by(passes, **inputs), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=3e-4)
    upstream = torch.randn(2, 17)
    actual = gradients(functools.partial(by, passes), inputs, upstream)
    for ours, theirs in zip(actual, gradients(reference.linear_logprob, double(inputs), upstream), strict=True):
        assert (ours.double() - theirs).abs().max() <= 1e-3 * theirs.abs().max()


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_a_softcap_meets_removed_columns(passes: HeadPasses) -> None:
    inputs = example(5, 8, 40, torch.float32)
    inputs["weight"] *= 30
    options = {"softcap": 3.0, "vocab_limit": 37}
    inputs["targets"] = torch.tensor([0, 36, 5, -100, 20])
    assert_near(
        by(passes, **inputs, **options), reference.linear_logprob(**double(inputs), entropy=True, **options), 3e-6
    )


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_what_lies_beyond_the_vocabulary_is_never_read_into_a_result(passes: HeadPasses) -> None:
    """NaN in padded head rows, in ignored rows and in the memory around the matrices."""
    inputs = example(19, 16, 50, torch.bfloat16)
    inputs["targets"].clamp_(max=40)
    clean = {name: value.clone() for name, value in inputs.items()}
    inputs["weight"][41:] = torch.nan
    inputs["bias"][41:] = torch.nan
    inputs["hidden"][inputs["targets"] == -100] = torch.nan
    surrounded = torch.full((30, 48), torch.nan, dtype=torch.bfloat16)
    surrounded[5:24, 16:32] = inputs["hidden"]
    inputs["hidden"] = surrounded[5:24, 16:32]
    for ours, theirs in zip(by(passes, **inputs, vocab_limit=41), by(passes, **clean, vocab_limit=41), strict=True):
        assert torch.equal(ours, theirs)
    upstream = torch.randn(2, 19)
    for ours, theirs in zip(
        gradients(functools.partial(by, passes), inputs, upstream, vocab_limit=41),
        gradients(functools.partial(by, passes), clean, upstream, vocab_limit=41),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_every_entry_of_outputs_and_workspaces_is_written(passes: HeadPasses, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = example(19, 16, 50, torch.float32)
    upstream = torch.randn(2, 19)
    clean = [*by(passes, **inputs), *gradients(functools.partial(by, passes), inputs, upstream)]
    for owner, name in ((torch, "empty"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoning(getattr(owner, name)))
    poisoned = [*by(passes, **inputs), *gradients(functools.partial(by, passes), inputs, upstream)]
    for ours, theirs in zip(poisoned, clean, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_strided_inputs_equal_contiguous_ones(passes: HeadPasses) -> None:
    inputs = example(17, 9, 40, torch.float32)
    inputs["targets"] = torch.randint(40, (17,))  # every row is kept, so nothing is copied
    strided = {
        "weight": inputs["weight"].T.contiguous().T,
        "hidden": inputs["hidden"].T.contiguous().T,
        "bias": torch.stack([inputs["bias"], torch.full_like(inputs["bias"], torch.nan)], dim=1)[:, 0],
        "targets": torch.stack([inputs["targets"], torch.full_like(inputs["targets"], 10**6)], dim=1)[:, 0],
    }
    for ours, theirs in zip(by(passes, **strided), by(passes, **inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    upstream = torch.randn(2, 17)
    for ours, theirs in zip(
        gradients(functools.partial(by, passes), strided, upstream),
        gradients(functools.partial(by, passes), inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("passes", [by_copy_engine(TMA), POINTERS])
def test_a_row_alone_has_the_bits_of_the_row_in_its_batch(passes: HeadPasses) -> None:
    inputs = example(40, 24, 257, torch.bfloat16)
    inputs["targets"] = torch.randint(257, (40,))
    together = by(passes, **inputs)
    for row in (0, 17, 39):
        one = slice(row, row + 1)
        alone = by(passes, **{**inputs, "hidden": inputs["hidden"][one].clone(), "targets": inputs["targets"][one]})
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours, theirs[one])


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_a_repeated_call_gives_the_same_bits(passes: HeadPasses) -> None:
    inputs = example(17, 16, 101, torch.bfloat16)
    upstream = torch.randn(2, 17)
    first, second = (
        [*by(passes, **inputs), *gradients(functools.partial(by, passes), inputs, upstream)] for _ in range(2)
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


@pytest.mark.parametrize("num_splits", [1, 2, 5, 9, 100])
def test_splitting_the_vocabulary_changes_nothing_but_rounding(num_splits: int) -> None:
    """Of 257 columns in tiles of 32, 5 splits leave the last one a single tile and 100 ask for more than there are."""
    inputs = example(17, 16, 257, torch.float32)
    tiles = TileConfig(16, 32, 16, 4, 1, slices=2, group_rows=2, num_splits=num_splits)
    actual = by(TritonPasses(capability=80, tiles=tiles), **inputs)
    for ours, theirs in zip(actual, by(POINTERS, **inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)


@pytest.mark.parametrize("passes", ALL_PASSES)
@pytest.mark.parametrize("num_rows", [0, 5])
def test_nothing_to_score_costs_no_launch(passes: HeadPasses, num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = example(num_rows, 16, 50, torch.float32)
    inputs["targets"].fill_(-100)
    monkeypatch.setattr(scan_module, "scan_kernel", None)
    output = by(passes, **inputs)
    assert all(torch.equal(values, torch.zeros(num_rows)) for values in output)
    for gradient in gradients(functools.partial(by, passes), inputs, torch.ones(2, num_rows)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_rows_without_an_upstream_gradient_are_skipped_backward(passes: HeadPasses) -> None:
    """A NaN row without an upstream gradient would poison the head's gradient if it were read."""
    inputs = example(5, 16, 50, torch.float32)
    inputs["targets"] = torch.arange(5)
    inputs["hidden"][3] = torch.nan
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in inputs.items()}
    output = by(passes, **leaves)
    upstream = torch.ones(5)
    upstream[3] = 0
    torch.autograd.backward([output.logprob], [upstream])
    assert leaves["weight"].grad.isfinite().all()
    assert (leaves["hidden"].grad[3] == 0).all()


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_a_target_outside_the_vocabulary_has_probability_zero(passes: HeadPasses) -> None:
    inputs = example(3, 16, 50, torch.float32)
    inputs["targets"] = torch.tensor([49, 50, 10**6])
    logprob = by(passes, **inputs).logprob
    assert logprob[0].isfinite()
    assert (logprob[1:] == -torch.inf).all()


@pytest.mark.parametrize("passes", [by_copy_engine(TMA)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_precision_comes_by_the_copy_engine_forward_and_backward(
    passes: HeadPasses, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Tensor] = []
    make = operands.TensorDescriptor.from_tensor

    def recorded(matrix: Tensor, block_shape: list[int]) -> Any:
        made.append(matrix)
        return make(matrix, block_shape)

    monkeypatch.setattr(operands.TensorDescriptor, "from_tensor", staticmethod(recorded))
    inputs = example(9, 16, 50, dtype)
    gradients(functools.partial(by, passes), inputs, torch.ones(2, 9))
    assert len(made) == (4 if dtype == torch.bfloat16 else 0)


@pytest.mark.parametrize(("dtype", "multiplied"), [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)])
def test_backward_products_are_in_the_dtype_that_keeps_the_exponent(
    dtype: torch.dtype, multiplied: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[torch.dtype] = []
    product = gradients_module.product

    def recorded(left: Tensor, right: Tensor) -> Tensor:
        found.append(left.dtype)
        return product(left, right)

    monkeypatch.setattr(gradients_module, "product", recorded)
    inputs = example(9, 16, 50, dtype)
    gradients(functools.partial(by, POINTERS), inputs, torch.ones(2, 9))
    assert found == [multiplied, multiplied]  # of hidden and of the head


def test_the_copy_engine_reads_what_is_aligned_and_contiguous() -> None:
    matrix = torch.zeros(4, 24, dtype=torch.bfloat16)
    assert can_use_tma(matrix)
    assert can_use_tma(matrix[:, :16])
    assert not can_use_tma(matrix.float())
    assert not can_use_tma(matrix[:, 1:])
    assert not can_use_tma(matrix.T)
    assert not can_use_tma(torch.zeros(4, 9, dtype=torch.bfloat16))
    assert not can_use_tma(matrix[:0])


def test_the_copy_engine_is_not_asked_for_rows_that_overlap() -> None:
    row = torch.zeros(1, 24, dtype=torch.bfloat16)
    assert can_use_tma(row)
    assert can_use_tma(row.as_strided((1, 24), (0, 1)))
    assert not can_use_tma(row.expand(4, 24))
    assert not can_use_tma(torch.zeros(64, dtype=torch.bfloat16).as_strided((4, 24), (8, 1)))
    assert can_use_tma(torch.zeros(128, dtype=torch.bfloat16).as_strided((4, 24), (24, 1)))


@pytest.mark.parametrize("passes", ALL_PASSES)
def test_one_row_for_all_tokens_is_read_as_that_row(passes: HeadPasses) -> None:
    inputs = example(5, 16, 50, torch.bfloat16)
    inputs["targets"] = torch.arange(5)
    inputs["hidden"] = inputs["hidden"][:1].expand(5, 16)
    copied = inputs | {"hidden": inputs["hidden"].contiguous()}
    for ours, theirs in zip(by(passes, **inputs), by(passes, **copied), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_how_row_blocks_are_grouped_changes_no_bit() -> None:
    inputs = example(40, 16, 65, torch.float32)
    alone = by(TritonPasses(80, tiles=replace(TILES, group_rows=1)), **inputs)
    together = by(TritonPasses(80, tiles=replace(TILES, group_rows=64)), **inputs)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, together, strict=True))


@pytest.mark.parametrize("implementation", ["triton", "cublas", "chunked", "reference"])
def test_the_public_function_reaches_every_implementation(implementation: Any) -> None:
    inputs = example(17, 8, 129, torch.float32)
    actual = linear_logprob(**inputs, entropy=True, implementation=implementation)
    assert_near(actual, reference.linear_logprob(**double(inputs), entropy=True), 5e-6)
