"""The chunked head against whole float64 logits, on awkward shapes and hostile numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sgsd_kernels import linear_logprob
from sgsd_kernels.head import chunked, reference
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from tests.kernels.head_cases import double, example, gradients
from tests.support.pairwise import Apart, grid

pytestmark = pytest.mark.on_cpu

SMALL_CHUNKS = {"row_chunk": 16, "vocab_chunk": 100}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7, "softcap": 5.0},
    {"temperature": 1.3, "vocab_limit": 29, "entropy": True},
]


@grid({"options": OPTIONS, "vocab_size": [33, 129, 1408], "width": [8, 40], "num_rows": [Apart(0), Apart(1), 17, 129]})
def test_values_and_gradients_equal_whole_float64_logits(
    num_rows: int, width: int, vocab_size: int, options: dict[str, Any]
) -> None:
    inputs = example(num_rows, width, vocab_size)
    inputs["targets"].clamp_(max=28)
    upstream = torch.randn(2, num_rows, dtype=torch.float64)
    expected = reference.linear_logprob(**inputs, **options)
    actual = chunked.linear_logprob(**inputs, **options, **SMALL_CHUNKS)
    assert (actual.entropy is None) == ("entropy" not in options)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        gradients(chunked.linear_logprob, inputs, upstream, **options, **SMALL_CHUNKS),
        gradients(reference.linear_logprob, inputs, upstream, **options),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("vocab_size", [1, 2])
def test_a_vocabulary_of_one_or_two_tokens_works(vocab_size: int) -> None:
    inputs = example(5, 8, vocab_size)
    expected = reference.linear_logprob(**inputs, entropy=True)
    actual = chunked.linear_logprob(**inputs, entropy=True, vocab_chunk=1)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "softcap": 2.0}, {"vocab_limit": 9}])
def test_finite_differences_agree_with_the_gradient_of_logprob_and_lse(options: dict[str, Any]) -> None:
    inputs = example(4, 3, 11)
    inputs["targets"].clamp_(max=8)
    leaves = [inputs[name].requires_grad_() for name in ("hidden", "weight", "bias")]

    def function(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        output = chunked.linear_logprob(
            hidden, weight, inputs["targets"], bias=bias, row_chunk=3, vocab_chunk=4, **options
        )
        return output.logprob, output.lse

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("vocab_size", [33, 1408])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_inputs_lose_nothing_but_float32_rounding(dtype: torch.dtype, vocab_size: int) -> None:
    inputs = example(129, 40, vocab_size, dtype)
    expected = reference.linear_logprob(**double(inputs), entropy=True)
    actual = chunked.linear_logprob(**inputs, entropy=True, **SMALL_CHUNKS)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 6e-3), (torch.float32, 3e-6)])
def test_gradients_in_low_precision_are_rounded_once(dtype: torch.dtype, tolerance: float) -> None:
    inputs = example(129, 40, 1408, dtype)
    upstream = torch.randn(2, 129)
    actual = gradients(chunked.linear_logprob, inputs, upstream, **SMALL_CHUNKS)
    expected = gradients(reference.linear_logprob, double(inputs), upstream)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("offset", [-10000.0, -200.0, -80.0, 80.0, 10000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_far_from_zero_cost_no_digits(dtype: torch.dtype, offset: float) -> None:
    """Eighths are exact at every offset, so the exact answer is that without the offset."""
    logits = torch.randint(-40, 40, (7, 33)).to(dtype) / 8
    inputs = {"hidden": torch.eye(7, dtype=dtype), "weight": (logits + offset).T.contiguous()}
    targets = torch.arange(7)
    upstream = torch.randn(2, 7)
    output = chunked.linear_logprob(**inputs, targets=targets, entropy=True, vocab_chunk=10)
    near = reference.linear_logprob(inputs["hidden"].double(), logits.T.double(), targets, entropy=True)
    torch.testing.assert_close(output.logprob.double(), near.logprob, rtol=0, atol=2e-6)
    torch.testing.assert_close(output.entropy.double(), near.entropy, rtol=0, atol=2e-6)
    with_bias = {**inputs, "targets": targets, "bias": torch.zeros(33, dtype=dtype)}
    actual = gradients(chunked.linear_logprob, with_bias, upstream, vocab_chunk=10)[2]
    expected = gradients(reference.linear_logprob, double(with_bias), upstream)[2]
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-6)


def test_a_spread_of_200_nats_and_removed_columns_stay_finite() -> None:
    inputs = example(17, 8, 129, torch.float32)
    inputs["weight"] *= 40
    inputs["bias"][:50] = -torch.inf  # the whole first chunk, and a part of the second
    inputs["targets"] = torch.randint(50, 129, (17,))
    upstream = torch.randn(2, 17)
    expected = reference.linear_logprob(**double(inputs), entropy=True)
    actual = chunked.linear_logprob(**inputs, entropy=True, vocab_chunk=40)
    assert expected.logprob.min() < -200
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=3e-4)
    for ours, theirs in zip(
        gradients(chunked.linear_logprob, inputs, upstream, vocab_chunk=40),
        gradients(reference.linear_logprob, double(inputs), upstream),
        strict=True,
    ):
        assert ours.isfinite().all()
        assert (ours.double() - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def test_a_removed_target_has_probability_zero() -> None:
    inputs = example(4, 8, 33)
    inputs["targets"] = torch.tensor([0, 1, 2, 3])
    inputs["bias"][2] = -torch.inf
    logprob = chunked.linear_logprob(**inputs, vocab_chunk=10).logprob
    assert logprob[2] == -torch.inf
    assert logprob[[0, 1, 3]].isfinite().all()


def test_ignored_rows_are_zero_and_get_no_gradient_even_when_poisoned() -> None:
    inputs = example(6, 8, 33)
    inputs["targets"] = torch.tensor([-100, 4, -100, 32, 0, -100])
    ignored = inputs["targets"] == -100
    inputs["hidden"][ignored] = torch.nan
    output = chunked.linear_logprob(**inputs, entropy=True)
    grad_hidden, grad_weight, grad_bias = gradients(chunked.linear_logprob, inputs, torch.ones(2, 6))
    for values in output:
        assert (values[ignored] == 0).all()
        assert (values[~ignored] != 0).all()
    assert (grad_hidden[ignored] == 0).all()
    assert grad_weight.isfinite().all()
    assert grad_bias.isfinite().all()


def test_a_batch_of_ignored_rows_has_zero_gradients() -> None:
    inputs = example(5, 8, 33)
    inputs["targets"].fill_(-100)
    for gradient in gradients(chunked.linear_logprob, inputs, torch.ones(2, 5)):
        assert (gradient == 0).all()


def test_rows_without_upstream_gradient_are_skipped_backward() -> None:
    """A NaN row without an upstream gradient would poison the head's gradient if it were read."""
    inputs = example(5, 8, 33)
    inputs["targets"] = torch.arange(5)
    inputs["hidden"][3] = torch.nan
    upstream = torch.ones(2, 5)
    upstream[:, 3] = 0
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in inputs.items()}
    output = chunked.linear_logprob(**leaves)
    torch.autograd.backward([output.logprob, output.lse], [upstream[0].double(), upstream[1].double()])
    assert leaves["weight"].grad.isfinite().all()
    assert (leaves["hidden"].grad[3] == 0).all()


def test_only_what_learns_gets_a_gradient() -> None:
    inputs = example(5, 8, 33)
    inputs["hidden"].requires_grad_()
    chunked.linear_logprob(**inputs).logprob.sum().backward()
    assert inputs["hidden"].grad is not None
    assert inputs["weight"].grad is None
    assert inputs["bias"].grad is None


def test_entropy_carries_no_gradient() -> None:
    inputs = example(5, 8, 33)
    output = chunked.linear_logprob(
        inputs["hidden"].requires_grad_(), inputs["weight"], inputs["targets"], entropy=True
    )
    assert output.logprob.requires_grad
    assert not output.entropy.requires_grad


def test_a_second_derivative_is_refused() -> None:
    inputs = example(5, 8, 33)
    hidden = inputs["hidden"].requires_grad_()
    logprob = chunked.linear_logprob(hidden, inputs["weight"], inputs["targets"]).logprob
    with pytest.raises(RuntimeError, match="linear_logprob has no second derivative"):
        torch.autograd.grad(logprob.sum(), hidden, create_graph=True)


@pytest.mark.parametrize("chunks", [(3, 2), (5, 7), (129, 1408), (1000, 5000)])
def test_chunk_sizes_change_nothing_but_rounding(chunks: tuple[int, int]) -> None:
    inputs = example(33, 40, 257, torch.float32)
    inputs["hidden"] *= 0.1
    upstream = torch.randn(2, 33)
    sizes = {"row_chunk": chunks[0], "vocab_chunk": chunks[1]}
    for ours, theirs in zip(
        chunked.linear_logprob(**inputs, entropy=True, **sizes),
        chunked.linear_logprob(**inputs, entropy=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    for ours, theirs in zip(
        gradients(chunked.linear_logprob, inputs, upstream, **sizes),
        gradients(chunked.linear_logprob, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-6)


def test_a_row_alone_equals_the_row_in_its_batch() -> None:
    inputs = example(40, 40, 1408, torch.float32)
    inputs["hidden"] *= 0.1
    inputs["targets"] = torch.randint(1408, (40,))
    together = chunked.linear_logprob(**inputs, **SMALL_CHUNKS).logprob
    for row in (0, 17, 39):
        alone = {**inputs, "hidden": inputs["hidden"][row : row + 1], "targets": inputs["targets"][row : row + 1]}
        single = chunked.linear_logprob(**alone, **SMALL_CHUNKS).logprob
        torch.testing.assert_close(single, together[row : row + 1], rtol=0, atol=1e-6)


def test_a_repeated_call_gives_the_same_bits() -> None:
    inputs = example(33, 40, 257, torch.float32)
    upstream = torch.randn(2, 33)
    first, second = (gradients(chunked.linear_logprob, inputs, upstream, **SMALL_CHUNKS) for _ in range(2))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def test_strided_inputs_equal_contiguous_ones() -> None:
    inputs = example(17, 8, 33)
    wide = torch.randn(17, 24, dtype=torch.float64)
    wide[:, 8:16] = inputs["hidden"]
    strided = {**inputs, "hidden": wide[:, 8:16], "weight": inputs["weight"].T.contiguous().T}
    upstream = torch.randn(2, 17)
    for ours, theirs in zip(
        gradients(chunked.linear_logprob, strided, upstream),
        gradients(chunked.linear_logprob, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_autocast_does_not_reach_the_logits(implementation: Any) -> None:
    inputs = example(17, 40, 129, torch.float32)
    expected = linear_logprob(**inputs, implementation=implementation).logprob
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = linear_logprob(**inputs, implementation=implementation).logprob
    assert torch.equal(actual, expected)


def test_autocast_does_not_reach_the_backward_products() -> None:
    inputs = example(17, 40, 129, torch.float32)
    upstream = torch.randn(2, 17)
    expected = gradients(linear_logprob, inputs, upstream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = gradients(linear_logprob, inputs, upstream)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_float32_head_takes_bfloat16_hidden_states() -> None:
    inputs = example(17, 40, 129, torch.float32)
    inputs["hidden"] = inputs["hidden"].bfloat16()
    actual = linear_logprob(**inputs).logprob
    torch.testing.assert_close(actual.double(), linear_logprob(**double(inputs)).logprob, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 33, 1])}, r"targets must be token ids in \[0, 33\).*got 33"),
        ({"targets": torch.tensor([0, -1, 1])}, r"targets must be token ids in \[0, 33\).*got -1"),
        ({"targets": torch.tensor([0, 9, 1]), "vocab_limit": 9}, r"in \[0, 9\).*got 9"),
        ({"targets": torch.tensor([0])}, r"targets must be \[N\] with hidden's N = 3; got \[1\]"),
        ({"weight": torch.zeros(33, 9)}, r"with the same D; got \[3, 8\] and \[33, 9\]"),
        ({"weight": torch.zeros(264)}, r"a whole head \[V, D\]; got \[264\], which is what a sharded parameter"),
        ({"weight": torch.zeros(0, 8)}, r"a whole head \[V, D\]; got \[0, 8\], which is what a sharded parameter"),
        ({"hidden": torch.zeros(1, 3, 8)}, r"hidden must be \[N, D\]"),
        ({"weight": torch.zeros(33, 8, dtype=torch.int64)}, "must have floating dtypes"),
        ({"bias": torch.zeros(32)}, r"bias must be \[V\] with the weight's V = 33; got \[32\]"),
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0"),
        ({"softcap": -1.0}, "softcap must be above 0, or None"),
        ({"vocab_limit": 0}, "vocab_limit must be at least 1"),
        ({"implementation": "fast"}, "must be one of auto, reference, chunked, triton, cublas; got 'fast'"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {
        "hidden": torch.zeros(3, 8),
        "weight": torch.zeros(33, 8),
        "targets": torch.tensor([0, 1, -100]),
    }
    with pytest.raises(ValueError, match=message):
        linear_logprob(**{**inputs, **change})


@pytest.mark.parametrize("implementation", ["auto", "reference", "chunked"])
def test_every_implementation_gives_the_same_logprobs(implementation: Any) -> None:
    inputs = example(17, 8, 129)
    actual = linear_logprob(**inputs, implementation=implementation).logprob
    torch.testing.assert_close(actual, reference.linear_logprob(**inputs).logprob)


def test_a_sharded_head_is_refused_with_what_to_do(tmp_path: Any) -> None:
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        weight = DTensor.from_local(torch.zeros(33, 8), mesh, [Replicate()])
        with pytest.raises(TypeError, match=r"weight is a DTensor.*inside the root module's forward"):
            linear_logprob(torch.zeros(3, 8), weight, torch.tensor([0, 1, 2]))
    finally:
        torch.distributed.destroy_process_group()
