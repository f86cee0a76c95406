"""No tensor of [tokens, vocab] exists on the chunked paths, forward or backward, and a frozen head costs no buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sgsd_kernels import support_logprob, teacher_support
from sgsd_kernels.head import chunked, reference
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytestmark = pytest.mark.on_cpu

NUM_ROWS, WIDTH, VOCAB_SIZE = 64, 8, 1408
ROW_CHUNK, VOCAB_CHUNK = 32, 128
SIZES = {"row_chunk": ROW_CHUNK, "vocab_chunk": VOCAB_CHUNK}


class LargestTensor(TorchDispatchMode):
    """Records the storage of every tensor that an operation makes; views count by what they hold alive."""

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self.numel = 0
        self.shapes: set[tuple[int, ...]] = set()
        self._known = {tensor.untyped_storage().data_ptr() for tensor in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self._known:
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
                self.shapes.add(tuple(leaf.shape))
        return result


def run(function: Callable[..., Any], dtype: torch.dtype, *, learns: bool, **options: Any) -> LargestTensor:
    hidden = torch.randn(NUM_ROWS, WIDTH).to(dtype).requires_grad_()
    weight = torch.randn(VOCAB_SIZE, WIDTH).to(dtype).requires_grad_(learns)
    bias = torch.randn(VOCAB_SIZE).to(dtype).requires_grad_(learns)
    targets = torch.randint(VOCAB_SIZE, (NUM_ROWS,))
    with LargestTensor(hidden, weight, bias, targets) as record:
        output = function(hidden, weight, targets, bias=bias, entropy=True, **options)
        (output.logprob.sum() + output.lse.square().sum()).backward()
    assert (weight.grad is not None) == learns
    return record


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "softcap": 3.0}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_frozen_head_needs_one_chunk_of_logits_and_nothing_of_its_own_size(
    dtype: torch.dtype, options: dict[str, Any]
) -> None:
    record = run(chunked.linear_logprob, dtype, learns=False, **SIZES, **options)
    assert record.numel == ROW_CHUNK * VOCAB_CHUNK
    assert record.numel < VOCAB_SIZE * WIDTH < NUM_ROWS * VOCAB_SIZE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_learning_head_needs_its_gradient_and_one_chunk(dtype: torch.dtype) -> None:
    record = run(chunked.linear_logprob, dtype, learns=True, **SIZES)
    assert record.numel == VOCAB_SIZE * WIDTH
    assert (VOCAB_SIZE, WIDTH) in record.shapes


def test_the_measurement_sees_the_logits_of_the_reference() -> None:
    record = run(reference.linear_logprob, torch.float32, learns=False)
    assert record.numel >= NUM_ROWS * VOCAB_SIZE


def test_the_default_chunk_is_64_mib_of_float32() -> None:
    assert chunked.ROW_CHUNK * chunked.VOCAB_CHUNK * 4 == 64 * 2**20


def test_the_teacher_support_needs_bounded_chunks() -> None:
    hidden, weight = torch.randn(NUM_ROWS, WIDTH), torch.randn(VOCAB_SIZE, WIDTH)
    targets = torch.randint(VOCAB_SIZE, (NUM_ROWS,))
    with LargestTensor(hidden, weight, targets) as record:
        teacher_support(hidden, weight, targets, 4, **SIZES)
    assert record.numel == ROW_CHUNK * VOCAB_CHUNK


def test_the_student_support_gathers_a_bounded_block_forward_and_backward() -> None:
    hidden = torch.randn(NUM_ROWS, WIDTH, requires_grad=True)
    weight = torch.randn(VOCAB_SIZE, WIDTH)
    ids = torch.randint(VOCAB_SIZE, (NUM_ROWS, 3, 5))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with LargestTensor(hidden, weight, ids, mask) as record:
        support_logprob(hidden, weight, ids, mask, gather_limit=2000)[..., 0].sum().backward()
    assert record.numel <= 2000
    assert NUM_ROWS * 3 * 5 * WIDTH > 2000
