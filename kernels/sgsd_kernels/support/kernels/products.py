"""Gathered products: hidden states with the few head rows that each pair names, without gathering them in memory."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.support.passes import SupportPairs
from sgsd_kernels.triton_shared.catalogue import Specimen

SLOT_BLOCK = 32
WIDTH_BLOCK = 128
NUM_WARPS = 4


@triton.jit(do_not_specialize=["num_slots"])
def gather_dot_kernel(
    hidden,
    weight,
    rows,
    ids,
    logits,
    num_slots,
    width,
    hidden_stride,
    weight_stride,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    pair = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * SLOTS + tl.arange(0, SLOTS)
    is_used = slots < num_slots
    row = tl.load(rows + pair)
    columns = tl.load(ids + pair * num_slots + slots, mask=is_used, other=0)
    products = tl.zeros([SLOTS, WIDTH], tl.float32)
    for first in range(0, width, WIDTH):
        place = first + tl.arange(0, WIDTH)
        exists = place < width
        state = tl.load(hidden + row * hidden_stride + place, mask=exists, other=0.0).to(tl.float32)
        head = tl.load(
            weight + columns[:, None] * weight_stride + place[None, :],
            mask=is_used[:, None] & exists[None, :],
            other=0.0,
        ).to(tl.float32)
        products += state[None, :] * head
    tl.store(logits + pair * num_slots + slots, tl.sum(products, axis=1), mask=is_used)


@triton.jit(do_not_specialize=["num_slots"])
def scatter_sum_kernel(
    source,
    gradient,
    source_row,
    gradient_place,
    starts,
    destinations,
    out,
    width,
    source_stride,
    out_stride,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """out[destinations[i]] = sum over entries e of segment i of gradient[place_e] * source[row_e], in their order."""
    segment = tl.program_id(0)
    place = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    exists = place < width
    start = tl.load(starts + segment)
    end = tl.load(starts + segment + 1)
    total = tl.zeros([WIDTH], tl.float32)
    for first in range(start, end, SLOTS):
        entries = first + tl.arange(0, SLOTS)
        is_used = entries < end
        scale = tl.load(gradient + tl.load(gradient_place + entries, mask=is_used, other=0), mask=is_used, other=0.0)
        row = tl.load(source_row + entries, mask=is_used, other=0)
        values = tl.load(
            source + row[:, None] * source_stride + place[None, :],
            mask=is_used[:, None] & exists[None, :],
            other=0.0,
        ).to(tl.float32)
        total += tl.sum(scale[:, None] * values, axis=0)
    destination = tl.load(destinations + segment)
    tl.store(out + destination * out_stride + place, total.to(out.dtype.element_ty), mask=exists)


def gather_dot(hidden: Tensor, weight: Tensor, pairs: SupportPairs) -> Tensor:
    """[P, S] float32: the row of ``hidden`` of each pair, times the head rows that it names."""
    hidden, weight = _with_contiguous_rows(hidden), _with_contiguous_rows(weight)
    num_pairs, num_slots = pairs.ids.shape
    logits = torch.empty(num_pairs, num_slots, dtype=torch.float32, device=hidden.device)
    if logits.numel() > 0:
        gather_dot_kernel[(num_pairs, triton.cdiv(num_slots, SLOT_BLOCK))](
            hidden,
            weight,
            pairs.rows,
            pairs.ids.contiguous(),
            logits,
            num_slots,
            hidden.shape[1],
            hidden.stride(0),
            weight.stride(0),
            SLOTS=SLOT_BLOCK,
            WIDTH=WIDTH_BLOCK,
            num_warps=NUM_WARPS,
        )
    return logits


def scatter_sum(
    source: Tensor,
    gradient: Tensor,
    source_row: Tensor,
    gradient_place: Tensor,
    destination: Tensor,
    like: Tensor,
) -> Tensor:
    """``out[d] = sum of gradient[place_e] * source[row_e]`` over the entries e of destination d, which must rise.

    Sums are float32 and rounded once, into the shape and dtype of ``like``.
    """
    out = torch.zeros(like.shape, dtype=like.dtype, device=source.device)
    if destination.numel() == 0:
        return out
    source = _with_contiguous_rows(source)
    destinations, counts = destination.unique_consecutive(return_counts=True)
    starts = torch.zeros(len(counts) + 1, dtype=torch.int64, device=source.device)
    torch.cumsum(counts, 0, out=starts[1:])
    scatter_sum_kernel[(len(destinations), triton.cdiv(out.shape[1], WIDTH_BLOCK))](
        source,
        gradient.contiguous(),
        source_row,
        gradient_place,
        starts,
        destinations,
        out,
        out.shape[1],
        source.stride(0),
        out.stride(0),
        SLOTS=SLOT_BLOCK,
        WIDTH=WIDTH_BLOCK,
        num_warps=NUM_WARPS,
    )
    return out


def _with_contiguous_rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()


def specimens(capability: int) -> Iterator[Specimen]:
    """Both kernels for a bfloat16 head; their code does not depend on the device."""
    sizes = {"SLOTS": SLOT_BLOCK, "WIDTH": WIDTH_BLOCK}
    yield Specimen(
        name="support/gather_dot",
        kernel=gather_dot_kernel,
        signature=dict.fromkeys(["num_slots", "width", "hidden_stride", "weight_stride"], "i32")
        | {"hidden": "*bf16", "weight": "*bf16", "rows": "*i64", "ids": "*i64", "logits": "*fp32"},
        constexprs=sizes,
        num_warps=NUM_WARPS,
        num_stages=3,
        divisible_by_16=frozenset({"hidden", "weight", "width", "hidden_stride", "weight_stride"}),
    )
    yield Specimen(
        name="support/scatter_sum",
        kernel=scatter_sum_kernel,
        signature=dict.fromkeys(["width", "source_stride", "out_stride"], "i32")
        | dict.fromkeys(["source_row", "gradient_place", "starts", "destinations"], "*i64")
        | {"source": "*bf16", "gradient": "*fp32", "out": "*bf16"},
        constexprs=sizes,
        num_warps=NUM_WARPS,
        num_stages=3,
        divisible_by_16=frozenset({"source", "out", "width", "source_stride", "out_stride"}),
    )
