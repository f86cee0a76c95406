"""One fused pass over the rows of a chunk of logits that the library's product left in float32.

Each logit is read once, by a program that has the row to itself.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.head.kernels.dlogits import dlogits_dtype
from sgsd_kernels.head.passes import HeadRows, Normalizer, RowStatistics, Upstream
from sgsd_kernels.triton_shared.arithmetic import absorb, final_logits, logprob_gradient, raw_gradient
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.operands import OPTION_SIGNATURE, option_arguments, option_variants

SCAN_BLOCK = 2048
GRADIENT_BLOCK = 2048
NUM_WARPS = 8


@triton.jit
def row_scan_kernel(
    logits,
    row_stride,
    bias,
    targets,
    row_max,
    total,
    centred,
    target_logit,
    first_column,
    last_column,
    inverse_temperature,
    softcap,
    ENTROPY: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0) + tl.arange(0, 1)
    target = tl.load(targets + rows)
    highest = tl.load(row_max + rows)
    sum_total = tl.load(total + rows)
    found = tl.load(target_logit + rows)
    sum_centred = tl.zeros([1], tl.float32)
    if ENTROPY:
        sum_centred = tl.load(centred + rows)
    start = logits + tl.program_id(0).to(tl.int64) * row_stride
    for first in range(first_column, last_column, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        raw = tl.load(start + (columns - first_column), mask=columns < last_column, other=0.0)
        block = final_logits(
            raw[None, :], columns, bias, last_column, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP
        )
        highest, sum_total, sum_centred, found = absorb(
            block, first, target, highest, sum_total, sum_centred, found, ENTROPY, COLUMNS
        )
    tl.store(row_max + rows, highest)
    tl.store(total + rows, sum_total)
    tl.store(target_logit + rows, found)
    if ENTROPY:
        tl.store(centred + rows, sum_centred)


@triton.jit
def row_dlogits_kernel(
    logits,
    out,
    row_stride,
    bias,
    targets,
    row_max,
    log_normalizer,
    target_gradient,
    lse_gradient,
    first_column,
    last_column,
    temperature,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0) + tl.arange(0, 1)
    first = first_column + tl.program_id(1) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    is_real = columns < last_column
    offsets = tl.program_id(0).to(tl.int64) * row_stride + (columns - first_column)
    raw = tl.load(logits + offsets, mask=is_real, other=0.0)
    block = final_logits(raw[None, :], columns, bias, last_column, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)
    gradient = logprob_gradient(
        block,
        first,
        tl.load(targets + rows),
        tl.load(row_max + rows),
        tl.load(log_normalizer + rows),
        tl.load(target_gradient + rows),
        tl.load(lse_gradient + rows),
        COLUMNS,
    )
    gradient = raw_gradient(gradient, block, temperature, inverse_temperature, softcap, HAS_SOFTCAP)
    tl.store((out + offsets)[None, :], gradient.to(out.dtype.element_ty), mask=is_real[None, :])


def scan_rows_(running: RowStatistics, logits: Tensor, rows: HeadRows, columns: slice) -> None:
    """Merge the chunk ``logits`` [R, columns] of the head's product into the ``running`` statistics, in place."""
    row_scan_kernel[(rows.num_rows,)](
        logits,
        logits.stride(0),
        targets=rows.targets,
        row_max=running.row_max,
        total=running.total,
        centred=running.total if running.centred is None else running.centred,
        target_logit=running.target_logit,
        first_column=columns.start,
        last_column=columns.stop,
        ENTROPY=running.centred is not None,
        COLUMNS=SCAN_BLOCK,
        num_warps=NUM_WARPS,
        **option_arguments(rows),
    )


def dlogits_rows(logits: Tensor, rows: HeadRows, columns: slice, normalizer: Normalizer, upstream: Upstream) -> Tensor:
    """Gradient [R, columns] of the head's product from the product itself, which may be overwritten by it."""
    dtype = dlogits_dtype(rows.weight.dtype)
    out = logits if dtype == logits.dtype else torch.empty(logits.shape, dtype=dtype, device=logits.device)
    row_dlogits_kernel[(rows.num_rows, triton.cdiv(columns.stop - columns.start, GRADIENT_BLOCK))](
        logits,
        out,
        logits.stride(0),
        targets=rows.targets,
        row_max=normalizer.row_max,
        log_normalizer=normalizer.log_normalizer,
        target_gradient=upstream.target.contiguous(),
        lse_gradient=upstream.lse.contiguous(),
        first_column=columns.start,
        last_column=columns.stop,
        temperature=rows.options.temperature,
        COLUMNS=GRADIENT_BLOCK,
        num_warps=NUM_WARPS,
        **option_arguments(rows),
    )
    return out


def specimens(capability: int) -> Iterator[Specimen]:
    """Both row kernels, also at a vocabulary of any length; their code does not depend on the device."""
    span = dict.fromkeys(["row_stride", "first_column", "last_column"], "i32")
    options = {"HAS_BIAS": False, "HAS_SOFTCAP": False}
    aligned = frozenset({"logits", "row_stride", "first_column", "last_column"})
    scan = Specimen(
        name="rows/scan",
        kernel=row_scan_kernel,
        signature=OPTION_SIGNATURE
        | span
        | dict.fromkeys(["logits", "row_max", "total", "centred", "target_logit"], "*fp32")
        | {"targets": "*i64"},
        constexprs=options | {"ENTROPY": True, "COLUMNS": SCAN_BLOCK},
        num_warps=NUM_WARPS,
        num_stages=3,
        divisible_by_16=aligned,
        holds=frozenset({"16-byte loads"}),
    )
    gradient = Specimen(
        name="rows/dlogits",
        kernel=row_dlogits_kernel,
        signature=OPTION_SIGNATURE
        | span
        | dict.fromkeys(["logits", "row_max", "log_normalizer", "target_gradient", "lse_gradient"], "*fp32")
        | {"targets": "*i64", "out": "*bf16", "temperature": "fp32"},
        constexprs=options | {"COLUMNS": GRADIENT_BLOCK},
        num_warps=NUM_WARPS,
        num_stages=3,
        divisible_by_16=aligned | {"out"},
        holds=frozenset({"16-byte loads", "16-byte stores"}),
    )
    for specimen in (scan, gradient):
        yield specimen
        yield from option_variants(specimen)
        yield specimen.variant("uneven", unaligned=("row_stride", "last_column"))
        # a vocabulary of one token
        yield specimen.variant("one", unaligned=("first_column",), row_stride=1, last_column=1)
