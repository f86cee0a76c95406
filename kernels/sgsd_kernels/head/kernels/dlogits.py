"""Backward: the gradient of one chunk of logits, recomputed tile by tile and stored once, ready to be multiplied."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.head.passes import HeadRows, Normalizer, Upstream
from sgsd_kernels.triton_shared.arithmetic import final_logits, logprob_gradient, raw_gradient
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.configs import TileConfig, dlogits_config
from sgsd_kernels.triton_shared.operands import (
    OPTION_SIGNATURE,
    ROWS_OF_ANY_LENGTH,
    TRITON_TYPES,
    expected_instructions,
    factor_arguments,
    factor_signature,
    option_arguments,
    option_variants,
    path_name,
    product_paths,
)
from sgsd_kernels.triton_shared.tiles import halves, product_tile, tile_coordinates


def dlogits_dtype(weight_dtype: torch.dtype) -> torch.dtype:
    """In which gradients of logits are stored for a product with a weight of ``weight_dtype``.

    bfloat16 keeps float32's exponent and makes the fast product; float16 would underflow.
    """
    return torch.bfloat16 if weight_dtype == torch.bfloat16 else torch.float32


@triton.jit
def _store_gradient(
    raw,
    rows,
    first,
    is_real,
    out,
    out_stride,
    first_column,
    last_column,
    bias,
    vocab_size,
    temperature,
    inverse_temperature,
    softcap,
    target,
    row_max,
    log_normalizer,
    target_gradient,
    lse_gradient,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    columns = first + tl.arange(0, COLUMNS)
    logits = final_logits(raw, columns, bias, vocab_size, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)
    gradient = logprob_gradient(logits, first, target, row_max, log_normalizer, target_gradient, lse_gradient, COLUMNS)
    gradient = raw_gradient(gradient, logits, temperature, inverse_temperature, softcap, HAS_SOFTCAP)
    address = out + rows.to(tl.int64)[:, None] * out_stride + (columns - first_column)[None, :]
    tl.store(address, gradient.to(out.dtype.element_ty), mask=is_real[:, None] & (columns < last_column)[None, :])


@triton.jit(do_not_specialize=["num_rows", "vocab_size"])
def dlogits_kernel(
    hidden,
    weight,
    bias,
    targets,
    row_max,
    log_normalizer,
    target_gradient,
    lse_gradient,
    out,
    num_rows,
    num_columns,
    width,
    hidden_stride,
    hidden_column_stride,
    weight_stride,
    weight_column_stride,
    out_stride,
    vocab_size,
    first_column,
    last_column,
    temperature,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    USE_TMA: tl.constexpr,
    EVEN_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
):
    num_tiles = tl.cdiv(last_column - first_column, COLUMNS)
    row_block, tile = tile_coordinates(tl.cdiv(num_rows, ROWS), num_tiles, GROUP_ROWS)
    first = first_column + tile * COLUMNS
    raw = product_tile(
        hidden, weight, row_block * ROWS, first, num_rows, num_columns, width,
        hidden_stride, hidden_column_stride, weight_stride, weight_column_stride,
        ROWS, COLUMNS, WIDTH, USE_TMA, EVEN_WIDTH,
    )  # fmt: skip
    rows = row_block * ROWS + tl.arange(0, ROWS)
    is_real = rows < num_rows
    target = tl.load(targets + rows, mask=is_real, other=-1).to(tl.int32)
    highest = tl.load(row_max + rows, mask=is_real, other=0.0)
    remainder = tl.load(log_normalizer + rows, mask=is_real, other=0.0)
    from_target = tl.load(target_gradient + rows, mask=is_real, other=0.0)
    from_lse = tl.load(lse_gradient + rows, mask=is_real, other=0.0)
    if SLICES == 2:
        left, right = halves(raw, ROWS, COLUMNS)
        _store_gradient(
            left, rows, first, is_real, out, out_stride, first_column, last_column,
            bias, vocab_size, temperature, inverse_temperature, softcap,
            target, highest, remainder, from_target, from_lse, HAS_BIAS, HAS_SOFTCAP, COLUMNS // 2,
        )  # fmt: skip
        raw = right
        first += COLUMNS // 2
    _store_gradient(
        raw, rows, first, is_real, out, out_stride, first_column, last_column,
        bias, vocab_size, temperature, inverse_temperature, softcap,
        target, highest, remainder, from_target, from_lse, HAS_BIAS, HAS_SOFTCAP, COLUMNS // SLICES,
    )  # fmt: skip


def dlogits(
    rows: HeadRows,
    columns: slice,
    normalizer: Normalizer,
    upstream: Upstream,
    config: TileConfig,
    *,
    use_tma: bool,
) -> Tensor:
    """Gradient [R, columns] of the head's product, in `dlogits_dtype`; see `sgsd_kernels.head.passes.HeadPasses`."""
    num_columns = columns.stop - columns.start
    out = torch.empty(rows.num_rows, num_columns, dtype=dlogits_dtype(rows.weight.dtype), device=rows.hidden.device)
    num_programs = triton.cdiv(rows.num_rows, config.block_rows) * triton.cdiv(num_columns, config.block_columns)
    dlogits_kernel[(num_programs,)](
        **factor_arguments(rows.hidden, rows.weight, config, use_tma),
        **option_arguments(rows),
        vocab_size=rows.vocab_size,
        temperature=rows.options.temperature,
        targets=rows.targets,
        row_max=normalizer.row_max,
        log_normalizer=normalizer.log_normalizer,
        target_gradient=upstream.target.contiguous(),
        lse_gradient=upstream.lse.contiguous(),
        out=out,
        out_stride=out.stride(0),
        first_column=columns.start,
        last_column=columns.stop,
        SLICES=config.slices,
        GROUP_ROWS=config.group_rows_of(rows.hidden.shape[1], rows.hidden.dtype),
    )
    return out


def specimens(capability: int) -> Iterator[Specimen]:
    """The recomputation by every path of the device, and with each option."""
    for use_tma, dtype in product_paths(capability):
        yield _specimen(capability, dtype, use_tma)
    use_tma = capability >= 90
    yield from option_variants(_specimen(capability, torch.bfloat16, use_tma))
    yield _specimen(capability, torch.float16, use_tma)
    by_pointers = _specimen(capability, torch.bfloat16, False)
    yield by_pointers.variant("uneven", unaligned=(*ROWS_OF_ANY_LENGTH, "last_column", "out_stride"), EVEN_WIDTH=False)
    # a vocabulary of one token
    yield by_pointers.variant("one", unaligned=("first_column",), num_columns=1, out_stride=1, last_column=1)


def _specimen(capability: int, dtype: torch.dtype, use_tma: bool) -> Specimen:
    config = dlogits_config(capability, dtype, use_tma)
    factors, constexprs, divisible = factor_signature(dtype, config, use_tma)
    return Specimen(
        name=f"dlogits/{path_name(use_tma, dtype)}",
        kernel=dlogits_kernel,
        signature=factors
        | OPTION_SIGNATURE
        | dict.fromkeys(["row_max", "log_normalizer", "target_gradient", "lse_gradient"], "*fp32")
        | {"targets": "*i64", "out": f"*{TRITON_TYPES[dlogits_dtype(dtype)]}", "temperature": "fp32"}
        | dict.fromkeys(["vocab_size", "out_stride", "first_column", "last_column"], "i32"),
        constexprs=constexprs
        | {"HAS_BIAS": False, "HAS_SOFTCAP": False}
        | {"SLICES": config.slices, "GROUP_ROWS": config.group_rows},
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        divisible_by_16=divisible | {"out", "out_stride", "first_column", "last_column"},
        expects=expected_instructions(capability, use_tma, dtype),
        holds=frozenset({"16-byte stores"}),
    )
