"""Ranking by a row kernel and gathered products by Triton, against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sgsd_kernels import support_logprob, teacher_support
from sgsd_kernels.support.chunked import GatheredProducts
from sgsd_kernels.support.kernels import top_k as top_k_kernels
from sgsd_kernels.support.passes import SupportPairs, logits_of_keys, ranking_keys
from sgsd_kernels.support.triton import TritonSupportProducts
from torch import Tensor

from tests.support.pairwise import Apart, grid

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

OPTIONS: list[dict[str, Any]] = [{}, {"temperature": 0.7, "softcap": 4.0}, {"vocab_limit": 29}]


def head(num_rows: int, width: int, vocab_size: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "hidden": torch.randn(num_rows, width).to(dtype),
        "weight": torch.randn(vocab_size, width).to(dtype),
        "bias": torch.randn(vocab_size).to(dtype),
    }


@grid(
    {
        "options": OPTIONS,
        "implementation": [Apart("reference"), "triton", "cublas"],
        "num_rows, vocab_size, top_k, dtype": [
            Apart((0, 33, 3, torch.float32)),
            Apart((1, 33, 1, torch.float32)),
            (9, 129, 5, torch.bfloat16),
            (5, 40, 33, torch.float32),
        ],
    }
)
def test_every_implementation_names_the_same_support(
    num_rows: int, vocab_size: int, top_k: int, dtype: torch.dtype, implementation: Any, options: dict[str, Any]
) -> None:
    inputs = {**head(num_rows, 16, vocab_size, dtype), "targets": torch.randint(29, (num_rows,))}
    inputs["targets"][1:2] = -100
    sizes = {"row_chunk": 4, "vocab_chunk": 30}
    expected = teacher_support(**inputs, support_top_k=top_k, implementation="chunked", **sizes, **options)
    actual = teacher_support(**inputs, support_top_k=top_k, implementation=implementation, **sizes, **options)
    for name in ("ids", "target_slot", "mask"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    torch.testing.assert_close(actual.logprob, expected.logprob, rtol=0, atol=5e-6)


def test_ties_go_to_the_lowest_id_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.tensor([[0.0], [1.0], [-0.0], [1.0], [1.0], [0.0], [1.0], [-1.0]])
    for vocab_chunk, block in ((1, 16), (3, 16), (8, 2), (8, 4)):
        monkeypatch.setattr(top_k_kernels, "BLOCK", block)
        support = teacher_support(
            torch.ones(1, 1), weight, torch.tensor([7]), 6, vocab_chunk=vocab_chunk, implementation="triton"
        )
        assert support.ids[0].tolist() == [1, 3, 4, 6, 0, 2, 7]


def test_removed_columns_and_a_removed_target() -> None:
    bias = torch.zeros(6)
    bias[1:5] = -torch.inf
    arguments = (torch.randn(2, 4), torch.randn(6, 4), torch.tensor([0, 2]), 4)
    actual = teacher_support(*arguments, bias=bias, implementation="triton")
    expected = teacher_support(*arguments, bias=bias, implementation="chunked")
    assert torch.equal(actual.ids, expected.ids)
    assert torch.equal(actual.mask, expected.mask)


def test_a_large_vocabulary_is_ranked_exactly() -> None:
    inputs = {**head(2, 8, 151_936), "targets": torch.tensor([151_935, 7])}
    actual = teacher_support(**inputs, support_top_k=32, implementation="triton")
    expected = teacher_support(**inputs, support_top_k=32, implementation="chunked")
    assert torch.equal(actual.ids, expected.ids)
    torch.testing.assert_close(actual.logprob, expected.logprob, rtol=0, atol=5e-6)


def test_a_logit_can_be_read_off_its_key() -> None:
    values = torch.tensor([3.4e38, 1e-45, 1.0, 0.0, -1e-45, -1.0, -torch.inf, -3.4e38])
    assert torch.equal(logits_of_keys(ranking_keys(values, torch.arange(8))), values)
    assert (logits_of_keys(top_k_kernels.empty_keys(2, 3, values.device)[:, :3]) == -torch.inf).all()


@grid(
    {
        "options": OPTIONS,
        "implementation": [Apart("reference"), "triton", "cublas"],
        "num_rows, num_contexts, num_slots, width": [
            Apart((0, 2, 3, 8)),
            Apart((1, 1, 1, 8)),
            (5, 3, 33, 40),
            (4, 2, 5, 130),
        ],
    }
)
def test_student_logprobs_and_gradients_equal_float64(
    num_rows: int, num_contexts: int, num_slots: int, width: int, implementation: Any, options: dict[str, Any]
) -> None:
    inputs = head(num_rows, width, 50)
    ids = torch.randint(29, (num_rows, num_contexts, num_slots))
    mask = torch.rand(ids.shape) > 0.2
    mask[..., 0] = True
    upstream = torch.randn(ids.shape).where(mask, 0.0)
    upstream[:, :1] *= torch.rand(num_rows, 1, 1) > 0.5  # pairs that backward may skip
    results = []
    for dtype, chosen in ((torch.float64, "chunked"), (torch.float32, implementation)):
        leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
        logprob = support_logprob(**leaves, ids=ids, mask=mask, implementation=chosen, **options)
        loss = (logprob.masked_fill(~mask, 0.0) * upstream.to(dtype)).sum()
        results.append([logprob, *torch.autograd.grad(loss, list(leaves.values()))])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_multiplied_exactly(dtype: torch.dtype) -> None:
    inputs = head(3, 40, 50, dtype)
    pairs = SupportPairs(torch.tensor([0, 0, 2]), torch.randint(50, (3, 7)))
    products = TritonSupportProducts()
    exact = GatheredProducts().logits(inputs["hidden"].double(), inputs["weight"].double(), pairs)
    torch.testing.assert_close(
        products.logits(inputs["hidden"], inputs["weight"], pairs).double(), exact, rtol=1e-6, atol=1e-5
    )


def test_sums_run_in_a_fixed_order_and_into_every_row_once() -> None:
    inputs = head(4, 16, 6)
    pairs = SupportPairs(torch.arange(12) // 3, torch.randint(6, (12, 5)))  # every token many times
    gradient = torch.randn(12, 5)
    products = TritonSupportProducts()
    for name in ("hidden_gradient", "weight_gradient"):
        first, second = (getattr(products, name)(gradient, inputs["hidden"], inputs["weight"], pairs) for _ in range(2))
        assert torch.equal(first, second)
        double = (gradient.double(), inputs["hidden"].double(), inputs["weight"].double(), pairs)
        torch.testing.assert_close(first.double(), getattr(GatheredProducts(), name)(*double), rtol=1e-6, atol=1e-5)


def test_strided_factors_equal_contiguous_ones() -> None:
    inputs = head(4, 16, 20)
    pairs = SupportPairs(torch.arange(4), torch.randint(20, (4, 5)))
    products = TritonSupportProducts()
    expected = products.logits(inputs["hidden"], inputs["weight"], pairs)
    strided = products.logits(inputs["hidden"].T.contiguous().T, inputs["weight"].T.contiguous().T, pairs)
    assert torch.equal(strided, expected)


@pytest.mark.parametrize("name", ["hidden_gradient", "weight_gradient"])
def test_gradients_come_in_their_final_dtype_and_entries_without_one_are_not_read(name: str) -> None:
    inputs = head(4, 16, 6, torch.bfloat16)
    inputs["weight"][0] = torch.nan
    inputs["hidden"][3] = torch.nan
    pairs = SupportPairs(torch.arange(4), torch.randint(6, (4, 5)))
    gradient = torch.randn(4, 5).masked_fill(pairs.ids == 0, 0.0)
    gradient[3] = 0
    products = TritonSupportProducts()
    actual = getattr(products, name)(gradient, inputs["hidden"], inputs["weight"], pairs)
    clean = {key: value.nan_to_num(0.0) for key, value in inputs.items()}
    double = (gradient.double(), clean["hidden"].double(), clean["weight"].double(), pairs)
    assert actual.dtype == torch.bfloat16
    # 2^-7: the interpreter truncates to bfloat16 where a device rounds
    torch.testing.assert_close(actual.double(), getattr(GatheredProducts(), name)(*double), rtol=2**-7, atol=1e-6)
