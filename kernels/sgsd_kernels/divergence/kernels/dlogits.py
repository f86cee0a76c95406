"""The gradient of the student's logits under a divergence, one chunk at a time, from the tiles made again."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.divergence.kernels.arithmetic import divergence_gradient
from sgsd_kernels.divergence.kernels.operands import has_variants, shared_arguments, tile_specimens
from sgsd_kernels.divergence.kernels.tiles import log_probabilities, mixture_tile
from sgsd_kernels.divergence.passes import DivergenceRows, RowDivergence
from sgsd_kernels.head.kernels.dlogits import dlogits_dtype
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.configs import TileConfig
from sgsd_kernels.triton_shared.operands import TRITON_TYPES, option_variants
from sgsd_kernels.triton_shared.tiles import halves, tile_coordinates


@triton.jit
def _store_gradient(
    logits,
    student,
    mixture,
    slope_sum,
    coefficient,
    start,
    first_column,
    is_real,
    num_stored,
    beta,
    clip,
    temperature,
    inverse_temperature,
    softcap,
    KIND: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    gradient = divergence_gradient(
        logits, student, mixture, slope_sum, coefficient, beta, clip,
        temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP,
    )  # fmt: skip
    columns = first_column + tl.arange(0, COLUMNS)
    is_stored = is_real[:, None] & (columns < num_stored)[None, :]
    tl.store(start[:, None] + columns[None, :], gradient.to(start.dtype.element_ty), mask=is_stored)


@triton.jit
def _store_gradient_by_halves(
    logits,
    student,
    mixture,
    slope_sum,
    coefficient,
    start,
    first_column,
    is_real,
    num_stored,
    beta,
    clip,
    temperature,
    inverse_temperature,
    softcap,
    KIND: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    left_logits, right_logits = halves(logits, ROWS, COLUMNS)
    left_student, right_student = halves(student, ROWS, COLUMNS)
    left_mixture, right_mixture = halves(mixture, ROWS, COLUMNS)
    _store_gradient(
        left_logits, left_student, left_mixture, slope_sum, coefficient, start, first_column, is_real, num_stored,
        beta, clip, temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP, COLUMNS // 2,
    )  # fmt: skip
    _store_gradient(
        right_logits, right_student, right_mixture, slope_sum, coefficient, start, first_column + COLUMNS // 2,
        is_real, num_stored, beta, clip, temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP,
        COLUMNS // 2,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_rows", "vocab_size", "num_teachers", "first_row", "last_row"])
def divergence_dlogits_kernel(
    hidden,
    weight,
    bias,
    row_max,
    log_normalizer,
    teacher_hidden,
    teacher_weight,
    teacher_bias,
    teacher_max,
    teacher_log_normalizer,
    log_weight,
    slope,
    upstream,
    out,
    num_rows,
    num_teachers,
    num_columns,
    width,
    hidden_stride,
    hidden_column_stride,
    weight_stride,
    weight_column_stride,
    teacher_num_columns,
    teacher_width,
    teacher_hidden_stride,
    teacher_hidden_column_stride,
    teacher_weight_stride,
    teacher_weight_column_stride,
    out_stride,
    vocab_size,
    first_row,
    last_row,
    first_column,
    last_column,
    temperature,
    inverse_temperature,
    softcap,
    beta,
    clip,
    KIND: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    IS_MIXTURE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TEACHER_HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    USE_TMA: tl.constexpr,
    EVEN_WIDTH: tl.constexpr,
    TEACHER_EVEN_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
):
    num_tiles = tl.cdiv(last_column - first_column, COLUMNS)
    row_block, tile = tile_coordinates(tl.cdiv(last_row - first_row, ROWS), num_tiles, GROUP_ROWS)
    row = first_row + row_block * ROWS
    column = first_column + tile * COLUMNS
    mixture = mixture_tile(
        teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, log_weight,
        num_teachers, row, column, num_rows, teacher_num_columns, teacher_width,
        teacher_hidden_stride, teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride,
        vocab_size, inverse_temperature, softcap, IS_MIXTURE, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA,
        TEACHER_EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
    )  # fmt: skip
    logits, student = log_probabilities(
        hidden, weight, bias, row_max, log_normalizer, row, column, num_rows, num_columns, width,
        hidden_stride, hidden_column_stride, weight_stride, weight_column_stride, vocab_size, inverse_temperature,
        softcap, HAS_BIAS, HAS_SOFTCAP, USE_TMA, EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
    )  # fmt: skip
    rows = row + tl.arange(0, ROWS)
    is_real = rows < last_row
    slope_sum = tl.load(slope + rows, mask=is_real, other=0.0)
    coefficient = tl.load(upstream + rows, mask=is_real, other=0.0)
    start = out + (rows - first_row).to(tl.int64) * out_stride
    columns = column - first_column
    num_stored = last_column - first_column
    if SLICES == 4:
        left_logits, logits = halves(logits, ROWS, COLUMNS)
        left_student, student = halves(student, ROWS, COLUMNS)
        left_mixture, mixture = halves(mixture, ROWS, COLUMNS)
        _store_gradient_by_halves(
            left_logits, left_student, left_mixture, slope_sum, coefficient, start, columns, is_real, num_stored,
            beta, clip, temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP, ROWS, COLUMNS // 2,
        )  # fmt: skip
        _store_gradient_by_halves(
            logits, student, mixture, slope_sum, coefficient, start, columns + COLUMNS // 2, is_real, num_stored,
            beta, clip, temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP, ROWS, COLUMNS // 2,
        )  # fmt: skip
    else:
        _store_gradient_by_halves(
            logits, student, mixture, slope_sum, coefficient, start, columns, is_real, num_stored,
            beta, clip, temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP, ROWS, COLUMNS,
        )  # fmt: skip


def dlogits(
    rows: DivergenceRows,
    block: slice,
    columns: slice,
    found: RowDivergence,
    upstream: Tensor,
    config: TileConfig,
    *,
    use_tma: bool,
) -> Tensor:
    """Gradient [block, columns] of the student's product, in `dlogits.dlogits_dtype`; see `DivergencePasses`."""
    num_rows, num_columns = block.stop - block.start, columns.stop - columns.start
    dtype, device = dlogits_dtype(rows.student.weight.dtype), rows.student.hidden.device
    out = torch.empty(num_rows, num_columns, dtype=dtype, device=device)
    num_programs = triton.cdiv(num_rows, config.block_rows) * triton.cdiv(num_columns, config.block_columns)
    divergence_dlogits_kernel[(num_programs,)](
        **shared_arguments(rows, found.student, found.teachers, config, use_tma),
        slope=found.slope,
        upstream=upstream.contiguous(),
        out=out,
        out_stride=out.stride(0),
        first_row=block.start,
        last_row=block.stop,
        first_column=columns.start,
        last_column=columns.stop,
        temperature=rows.student.options.temperature,
        SLICES=config.slices,
    )
    return out


def specimens(capability: int) -> Iterator[Specimen]:
    """The kernel by every path of the device."""
    numbers = dict.fromkeys(["out_stride", "first_row", "last_row", "first_column", "last_column"], "i32")
    for path, dtype, config, parts in tile_specimens(capability):
        parts["signature"] |= {"slope": "*fp32", "upstream": "*fp32", "out": f"*{TRITON_TYPES[dlogits_dtype(dtype)]}"}
        parts["signature"] |= numbers | {"temperature": "fp32"}
        parts["constexprs"] |= {"SLICES": config.slices}
        parts["divisible_by_16"] |= {"out", "out_stride", "first_column", "last_column"}
        parts["holds"] = frozenset({"16-byte stores"})
        specimen = Specimen(name=f"divergence_dlogits/{path}", kernel=divergence_dlogits_kernel, **parts)
        yield specimen
        if has_variants(specimen):
            yield from option_variants(specimen)
