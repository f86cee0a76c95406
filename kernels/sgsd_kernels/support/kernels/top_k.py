"""The running k largest logits of each row, over a chunk that the library's product left in float32."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.head.passes import HeadRows
from sgsd_kernels.triton_shared.arithmetic import NEGATIVE_INFINITY, final_logits
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.operands import OPTION_SIGNATURE, option_arguments

BLOCK = 2048
NUM_WARPS = 8
LOWEST_KEY = tl.constexpr(-(2**63))
FIRST_EMPTY_KEY = -(2**63) + 1
HIGHEST_KEY = 2**63 - 1


@triton.jit
def rank_kernel(
    logits,
    row_stride,
    keys,
    key_stride,
    bias,
    targets,
    target_logit,
    first_column,
    last_column,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    SLOTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    place = keys + row * key_stride + tl.arange(0, SLOTS)
    best = tl.load(place)
    weakest = tl.min(best)
    target = tl.load(targets + row)
    found = tl.load(target_logit + row)
    for first in range(first_column, last_column, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        is_real = columns < last_column
        raw = tl.load(logits + row * row_stride + (columns - first_column), mask=is_real, other=0.0)
        block = tl.reshape(
            final_logits(raw[None, :], columns, bias, last_column, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP),
            [COLUMNS],
        )
        found = tl.maximum(found, tl.max(tl.where(columns == target, block, NEGATIVE_INFINITY)))
        bits = tl.where(block == 0.0, 0.0, block).to(tl.int32, bitcast=True)
        ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
        candidates = tl.where(is_real, ordered * 4294967296 + (4294967295 - columns.to(tl.int64)), LOWEST_KEY)
        strongest = tl.max(candidates)
        while strongest > weakest:
            best = tl.where(best == weakest, strongest, best)
            candidates = tl.where(candidates == strongest, LOWEST_KEY, candidates)
            weakest = tl.min(best)
            strongest = tl.max(candidates)
    tl.store(place, best)
    tl.store(target_logit + row, found)


def empty_keys(num_rows: int, top_k: int, device: torch.device) -> Tensor:
    """[num_rows, slots] keys that no logit has: the first ``top_k`` below all of them, the rest above.

    No two of a row are equal, so that the weakest is always one slot.
    """
    slots = torch.arange(triton.next_power_of_2(top_k), device=device)
    keys = torch.where(slots < top_k, slots + FIRST_EMPTY_KEY, HIGHEST_KEY - slots)
    return keys.repeat(num_rows, 1)


def rank_rows_(keys: Tensor, target_logit: Tensor, raw: Tensor, rows: HeadRows, columns: slice) -> None:
    """Merge the head's product ``raw`` [R, columns] into ``keys`` [R, slots] and ``target_logit`` [R], in place."""
    rank_kernel[(rows.num_rows,)](
        raw,
        raw.stride(0),
        keys,
        keys.stride(0),
        targets=rows.targets,
        target_logit=target_logit,
        first_column=columns.start,
        last_column=columns.stop,
        SLOTS=keys.shape[1],
        COLUMNS=BLOCK,
        num_warps=NUM_WARPS,
        **option_arguments(rows),
    )


def specimens(capability: int) -> Iterator[Specimen]:
    """The ranking for k of 32 and less; its code does not depend on the device."""
    yield Specimen(
        name="top_k/32",
        kernel=rank_kernel,
        signature=OPTION_SIGNATURE
        | dict.fromkeys(["row_stride", "key_stride", "first_column", "last_column"], "i32")
        | {"logits": "*fp32", "target_logit": "*fp32", "keys": "*i64", "targets": "*i64"},
        constexprs={"HAS_BIAS": False, "HAS_SOFTCAP": False, "SLOTS": 32, "COLUMNS": BLOCK},
        num_warps=NUM_WARPS,
        num_stages=3,
        divisible_by_16=frozenset({"logits", "row_stride", "keys", "first_column", "last_column"}),
        holds=frozenset({"16-byte loads"}),
    )
