"""The divergence's Triton kernels against float64, in the interpreter where there is no GPU.

New tensors hold NaN until they are written (`_poisoned`), so that nothing reads what no kernel has stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sgsd_kernels import linear_divergence
from sgsd_kernels.divergence import cublas as cublas_divergence
from sgsd_kernels.divergence.cublas import CublasDivergence
from sgsd_kernels.divergence.kernels import rows as divergence_rows
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.divergence.triton import TritonDivergence
from sgsd_kernels.head.passes import HeadSpan
from sgsd_kernels.head.triton import TritonPasses
from sgsd_kernels.triton_shared.configs import TileConfig
from torch import Tensor

from tests.kernels.divergence_cases import KINDS, assert_close, by, example, expected, half_precision_rows, run
from tests.kernels.kernel_passes import device_capability

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILES = TileConfig(16, 64, 32, num_warps=4, num_stages=1, slices=2, group_rows=2, num_splits=2)
QUARTERS = TileConfig(16, 64, 16, num_warps=4, num_stages=1, slices=4, group_rows=64, num_splits=50)
TILED = TritonDivergence(TritonPasses(capability=80, tiles=TILES))
TILED_QUARTERS = TritonDivergence(TritonPasses(capability=80, tiles=TILES), tiles=QUARTERS)
LIBRARY = CublasDivergence(forward_bytes=8 * 65 * 10, row_chunk=10, vocab_chunk=100)
ALL_PASSES = [
    pytest.param(TILED, id="triton"),
    pytest.param(TILED_QUARTERS, id="triton-quarters"),
    pytest.param(LIBRARY, id="library"),
]
FORWARD, REVERSE, JSD, UNEVEN_JSD = KINDS


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def poisoned(*arguments: Any, **options: Any) -> Tensor:
        tensor = empty(*arguments, **options)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", poisoned)
    monkeypatch.setattr(divergence_rows, "BLOCK", 128)


def check(
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor],
    value_error: float,
    gradient_error: float,
    **options: Any,
) -> None:
    upstream = torch.randn(len(inputs["student_hidden"]))
    wanted = expected(inputs, upstream, **options)
    actual = run(function, inputs, upstream, **options)
    assert actual[0].dtype == torch.float32
    assert_close(actual, wanted, value_error, gradient_error)


@pytest.mark.parametrize("passes", ALL_PASSES)
@pytest.mark.parametrize(
    ("num_rows", "width", "vocab_size", "dtype", "shape", "options"),
    [
        (0, 8, 33, torch.float32, {}, FORWARD),
        (1, 24, 33, torch.float32, {}, {**FORWARD, "temperature": 0.7, "softcap": 3.0, "token_clip": 0.01}),
        (17, 40, 65, torch.bfloat16, {"num_teachers": 3}, REVERSE),
        (3, 9, 257, torch.float32, {"own_head": True}, {**UNEVEN_JSD, "vocab_limit": 130}),
        (9, 8, 130, torch.float16, {"num_teachers": 2, "own_head": True}, {**JSD, "token_clip": 0.005}),
        (2, 8, 2, torch.float32, {}, REVERSE),
        (2, 8, 1, torch.float32, {}, JSD),
    ],
)
def test_values_and_gradients_equal_the_definition(
    passes: Any,
    num_rows: int,
    width: int,
    vocab_size: int,
    dtype: torch.dtype,
    shape: dict[str, Any],
    options: dict[str, Any],
) -> None:
    inputs = example(num_rows, width, vocab_size, dtype=dtype, **shape)
    gradient_error = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    check(by(passes), inputs, 2e-6, gradient_error, **options)


@pytest.mark.parametrize("passes", [TILED, LIBRARY])
@pytest.mark.parametrize(("kind", "num_teachers"), [(FORWARD, 1), (REVERSE, 2), (JSD, 2)])
def test_a_spread_of_200_nats_stays_finite_and_right(passes: Any, kind: dict[str, Any], num_teachers: int) -> None:
    inputs = example(3, 8, 129, num_teachers=num_teachers, own_head=True, dtype=torch.float32)
    inputs["bias"] = torch.linspace(-200.0, 0.0, 129)
    inputs["teacher_bias"] = torch.linspace(0.0, -200.0, 129)
    check(by(passes), inputs, 2e-5, 5e-5, **kind)


@pytest.mark.parametrize("passes", [TILED, LIBRARY])
@pytest.mark.parametrize("kind", [FORWARD, REVERSE, JSD])
def test_far_logits_and_columns_that_a_bias_removes_stay_finite_and_right(passes: Any, kind: dict[str, Any]) -> None:
    inputs = example(3, 8, 129, num_teachers=2, dtype=torch.float32)
    inputs["bias"] = (inputs["bias"] * 64).round() / 64 - 120
    removed = torch.rand(129) > 0.5
    removed[:64] = True  # a whole tile
    alone = inputs | {"weight": inputs["weight"][~removed], "bias": inputs["bias"][~removed]}
    inputs["bias"][removed] = -torch.inf
    upstream = torch.randn(3)
    value, (hidden, weight, bias) = run(by(passes), inputs, upstream, **kind)
    kept = ~removed
    wanted = expected(alone, upstream, **kind)
    assert_close((value, [hidden, weight[kept], bias[kept]]), wanted, 5e-5, 2e-4)
    assert weight[~kept].eq(0).all()


@pytest.mark.parametrize("passes", [TILED, LIBRARY])
def test_a_removed_row_costs_nothing_and_a_row_without_upstream_gradient_gets_none(passes: Any) -> None:
    inputs = example(5, 8, 33, num_teachers=2, dtype=torch.float32)
    mask = torch.tensor([True, False, True, True, True])
    inputs["student_hidden"][1] = torch.nan
    inputs["teacher_hidden"][:, 1] = torch.nan
    upstream = torch.tensor([1.0, 1.0, 0.0, -2.0, 0.0])
    value, gradients = run(by(passes), inputs, upstream, mask=mask, **JSD)
    assert value[1] == 0
    assert gradients[0][[1, 2, 4]].eq(0).all()
    inputs = {name: tensor.nan_to_num(0.0) for name, tensor in inputs.items()}
    wanted = expected(inputs, upstream * mask, **JSD)
    assert_close((value[mask], gradients), (wanted[0][mask], wanted[1]), 2e-6, 5e-6)


def test_a_row_alone_has_the_bits_that_it_has_in_a_batch() -> None:
    inputs = example(18, 24, 129, num_teachers=2, dtype=torch.float32)
    value, (gradient, _, _) = run(by(TILED), inputs, torch.ones(18), **JSD)
    rows = [0, 7, 17]
    alone = inputs | {
        "student_hidden": inputs["student_hidden"][rows],
        "teacher_hidden": inputs["teacher_hidden"][:, rows],
        "mixture_weights": inputs["mixture_weights"][rows],
    }
    value_alone, (gradient_alone, _, _) = run(by(TILED), alone, torch.ones(3), **JSD)
    assert value_alone.equal(value[rows])
    torch.testing.assert_close(gradient_alone, gradient[rows], rtol=1e-6, atol=1e-7)  # the library's product


@pytest.mark.parametrize("passes", [TILED, LIBRARY])
def test_the_same_input_gives_the_same_bits(passes: Any) -> None:
    inputs = example(5, 8, 129, dtype=torch.float32)
    upstream = torch.randn(5)
    first, second = (run(by(passes), inputs, upstream, **JSD) for _ in range(2))
    assert first[0].equal(second[0])
    assert all(ours.equal(theirs) for ours, theirs in zip(first[1], second[1], strict=True))


@pytest.mark.skipif((device_capability() or 90) < 90, reason="TMA needs Hopper or later")
@pytest.mark.parametrize("num_teachers", [1, 2])
def test_tiles_that_come_by_tma_give_the_bits_of_tiles_that_come_by_pointers(num_teachers: int) -> None:
    inputs = example(17, 40, 129, num_teachers=num_teachers, own_head=True, dtype=torch.bfloat16)
    rows = half_precision_rows(inputs, Divergence("jsd", beta=0.3))
    upstream = torch.randn(17)
    span = HeadSpan(slice(64, 129), inputs["weight"][64:129], None)
    tma, pointers = (TritonDivergence(TritonPasses(capability=capability, tiles=TILES)) for capability in (90, 80))
    assert tma._use_tma(rows)
    assert not pointers._use_tma(rows)
    found, found_by_pointers = tma.measure(rows), pointers.measure(rows)
    assert found.value.equal(found_by_pointers.value)
    assert found.slope.equal(found_by_pointers.slope)
    chunk = (slice(3, 17), span, found, upstream)
    assert tma.dlogits(rows, *chunk).equal(pointers.dlogits(rows, *chunk))


@pytest.mark.parametrize("num_teachers", [1, 3])
def test_a_frozen_head_costs_one_product_per_row_and_teacher_and_none_in_backward(
    num_teachers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = example(9, 8, 33, num_teachers=num_teachers, dtype=torch.float32)
    upstream = torch.randn(9)
    upstream[4] = 0.0
    wanted = expected(inputs, upstream, **JSD)
    num_rows: list[int] = []
    product = cublas_divergence.product

    def counted(left: Tensor, right: Tensor) -> Tensor:
        num_rows.append(len(left))
        return product(left, right)

    monkeypatch.setattr(cublas_divergence, "product", counted)
    blocks_of_four = CublasDivergence(forward_bytes=4 * 8 * 33)
    monkeypatch.setattr(cublas_divergence, "CublasDivergence", lambda: blocks_of_four)
    hidden = inputs["student_hidden"].requires_grad_()
    value = linear_divergence(**inputs, **JSD, implementation="cublas")
    assert sum(num_rows) == 9 * (1 + num_teachers + 1)
    assert max(num_rows) == 4
    gradient = torch.autograd.grad(value, hidden, upstream)[0]
    assert sum(num_rows) == 9 * (1 + num_teachers + 1)
    assert_close((value.detach(), [gradient]), (wanted[0], wanted[1][:1]), 2e-6, 5e-6)
    with torch.no_grad():
        linear_divergence(**inputs, **JSD, implementation="cublas")
    assert sum(num_rows) == 9 * (1 + num_teachers + 1) + 9 * (1 + num_teachers)


def test_a_head_of_another_dtype_is_cast_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head = torch.randn(5, 8), torch.randn(33, 8).to(torch.bfloat16)
    dlogits = torch.randn(5, 33)
    monkeypatch.setattr(cublas_divergence, "VOCAB_CHUNK", 10)
    torch.testing.assert_close(cublas_divergence._head_product(hidden, head), hidden @ head.float().T)
    torch.testing.assert_close(cublas_divergence._through_head(dlogits, head), dlogits @ head.float())


@pytest.mark.parametrize("support_tail", [False, True])
@pytest.mark.parametrize("implementation", ["triton", "cublas"])
def test_a_support_is_ranked_and_multiplied_by_every_implementation(implementation: Any, support_tail: bool) -> None:
    inputs = example(5, 8, 33, dtype=torch.float32)
    upstream = torch.randn(5)
    options = {"support_top_k": 4, "support_tail": support_tail, "token_clip": 0.02, **JSD}
    actual = run(linear_divergence, inputs, upstream, implementation=implementation, **options)
    assert_close(actual, expected(inputs, upstream, **options), 2e-6, 5e-6)


def test_an_infinite_divergence_without_upstream_gradient_leaves_no_nan() -> None:
    inputs = example(2, 8, 33, own_head=True, dtype=torch.float32)
    inputs["teacher_bias"][3] = -torch.inf
    hidden = inputs["student_hidden"].requires_grad_()
    value = linear_divergence(**inputs, **REVERSE, implementation="cublas")
    assert value.eq(torch.inf).all()
    assert torch.autograd.grad(value, hidden, torch.zeros_like(value))[0].eq(0).all()
    clipped = linear_divergence(**inputs, **REVERSE, token_clip=0.1, implementation="cublas")
    assert torch.autograd.grad(clipped.sum(), hidden)[0].isfinite().all()


@pytest.mark.parametrize("implementation", ["triton", "cublas"])
def test_the_public_function_reaches_the_kernels_and_refuses_a_second_derivative(implementation: Any) -> None:
    inputs = example(3, 8, 33, dtype=torch.float32)
    wanted, _ = expected(inputs, torch.ones(3), **JSD)
    hidden = inputs["student_hidden"].requires_grad_()
    value = linear_divergence(**inputs, **JSD, implementation=implementation)
    torch.testing.assert_close(value.detach().double(), wanted, rtol=0, atol=2e-6)
    with pytest.raises(RuntimeError, match="has no second derivative"):
        torch.autograd.grad(value.sum(), hidden, create_graph=True)
