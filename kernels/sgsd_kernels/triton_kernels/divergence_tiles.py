"""The divergence of student and teachers, tile by tile, with logits that never leave the chip.

A program holds a tile of the teachers' mixture, made teacher by teacher, and a tile of the student. Forward sums
entries and slopes over a split of the vocabulary; a second kernel adds the splits in a fixed order. Backward makes the
same two tiles again and stores the gradient of one chunk of logits. The log-sum-exps come from `scan`.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.divergence import Divergence
from sgsd_kernels.divergence_passes import DivergenceRows, RowDivergence
from sgsd_kernels.head_passes import Normalizer
from sgsd_kernels.triton_kernels.arithmetic import NEGATIVE_INFINITY, final_logits
from sgsd_kernels.triton_kernels.catalogue import Specimen
from sgsd_kernels.triton_kernels.configs import TileConfig
from sgsd_kernels.triton_kernels.divergence_arithmetic import divergence_entries, divergence_gradient, log_sum
from sgsd_kernels.triton_kernels.dlogits import dlogits_dtype
from sgsd_kernels.triton_kernels.operands import (
    OPTION_SIGNATURE,
    TRITON_TYPES,
    expected_instructions,
    factor_arguments,
    factor_signature,
    option_arguments,
    path_name,
    product_paths,
)
from sgsd_kernels.triton_kernels.tiles import halves, product_tile, tile_coordinates

MERGE_ROWS = 128
TEACHER_FACTORS = (
    "hidden",
    "weight",
    "num_columns",
    "width",
    "hidden_stride",
    "hidden_column_stride",
    "weight_stride",
    "weight_column_stride",
)


def divergence_config(capability: int, dtype: torch.dtype, use_tma: bool) -> TileConfig:
    """Tiles of which two fit into the registers; chosen as those of `configs`."""
    if dtype == torch.float32:
        return TileConfig(64, 32, 32, num_warps=4, num_stages=3, slices=2)
    if use_tma and capability < 100:
        return TileConfig(128, 128, 64, num_warps=8, num_stages=3, slices=4)
    num_splits = 33 if capability >= 90 else 27
    return TileConfig(128, 64, 64, num_warps=8, num_stages=3, slices=2, group_rows=32, num_splits=num_splits)


@triton.jit
def _log_probabilities(
    hidden,
    weight,
    bias,
    row_max,
    log_normalizer,
    first_row,
    first_column,
    num_rows,
    num_columns,
    width,
    hidden_stride,
    hidden_column_stride,
    weight_stride,
    weight_column_stride,
    vocab_size,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    USE_TMA: tl.constexpr,
    EVEN_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Final logits of a tile, and their row's maximum and log-normaliser."""
    raw = product_tile(
        hidden, weight, first_row, first_column, num_rows, num_columns, width,
        hidden_stride, hidden_column_stride, weight_stride, weight_column_stride,
        ROWS, COLUMNS, WIDTH, USE_TMA, EVEN_WIDTH,
    )  # fmt: skip
    columns = first_column + tl.arange(0, COLUMNS)
    logits = final_logits(raw, columns, bias, vocab_size, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)
    rows = first_row + tl.arange(0, ROWS)
    is_real = rows < num_rows
    highest = tl.load(row_max + rows, mask=is_real, other=0.0)
    remainder = tl.load(log_normalizer + rows, mask=is_real, other=0.0)
    return logits, logits - highest[:, None] - remainder[:, None]


@triton.jit
def _mixture(
    teacher_hidden,
    teacher_weight,
    teacher_bias,
    teacher_max,
    teacher_log_normalizer,
    log_weight,
    num_teachers,
    first_row,
    first_column,
    num_rows,
    teacher_num_columns,
    teacher_width,
    teacher_hidden_stride,
    teacher_hidden_column_stride,
    teacher_weight_stride,
    teacher_weight_column_stride,
    vocab_size,
    inverse_temperature,
    softcap,
    IS_MIXTURE: tl.constexpr,
    TEACHER_HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    USE_TMA: tl.constexpr,
    TEACHER_EVEN_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """log sum_k w_k p_k of a tile."""
    num_teacher_rows = num_rows * num_teachers
    if IS_MIXTURE:
        rows = first_row + tl.arange(0, ROWS)
        mixture = tl.full([ROWS, COLUMNS], NEGATIVE_INFINITY, tl.float32)
        for teacher in range(0, num_teachers):
            start = teacher * num_rows
            _, logprob = _log_probabilities(
                teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, start + first_row,
                first_column, num_teacher_rows, teacher_num_columns, teacher_width, teacher_hidden_stride,
                teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride, vocab_size,
                inverse_temperature, softcap, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA, TEACHER_EVEN_WIDTH,
                ROWS, COLUMNS, WIDTH,
            )  # fmt: skip
            share = tl.load(log_weight + start + rows, mask=rows < num_rows, other=0.0)
            mixture = log_sum(mixture, logprob + share[:, None])
    else:
        _, mixture = _log_probabilities(
            teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, first_row,
            first_column, num_teacher_rows, teacher_num_columns, teacher_width, teacher_hidden_stride,
            teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride, vocab_size,
            inverse_temperature, softcap, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA, TEACHER_EVEN_WIDTH,
            ROWS, COLUMNS, WIDTH,
        )  # fmt: skip
    return mixture


@triton.jit(do_not_specialize=["num_rows", "vocab_size", "tiles_per_split", "num_teachers"])
def divergence_kernel(
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
    split_value,
    split_slope,
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
    vocab_size,
    inverse_temperature,
    softcap,
    beta,
    clip,
    tiles_per_split,
    num_splits,
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
    GROUP_ROWS: tl.constexpr,
):
    row_block, split = tile_coordinates(tl.cdiv(num_rows, ROWS), num_splits, GROUP_ROWS)
    first_row = row_block * ROWS
    value_sum = tl.zeros([ROWS], tl.float32)
    slope_sum = tl.zeros([ROWS], tl.float32)
    first_tile = split * tiles_per_split
    last_tile = tl.minimum(first_tile + tiles_per_split, tl.cdiv(vocab_size, COLUMNS))
    for tile in range(first_tile, last_tile):
        mixture = _mixture(
            teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, log_weight,
            num_teachers, first_row, tile * COLUMNS, num_rows, teacher_num_columns, teacher_width,
            teacher_hidden_stride, teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride,
            vocab_size, inverse_temperature, softcap, IS_MIXTURE, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA,
            TEACHER_EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
        )  # fmt: skip
        _, student = _log_probabilities(
            hidden, weight, bias, row_max, log_normalizer, first_row, tile * COLUMNS, num_rows, num_columns, width,
            hidden_stride, hidden_column_stride, weight_stride, weight_column_stride, vocab_size, inverse_temperature,
            softcap, HAS_BIAS, HAS_SOFTCAP, USE_TMA, EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
        )  # fmt: skip
        value, slope, _ = divergence_entries(student, mixture, beta, clip, KIND, HAS_CLIP)
        value_sum += tl.sum(value, axis=1)
        slope_sum += tl.sum(slope, axis=1)
    rows = first_row + tl.arange(0, ROWS)
    place = split.to(tl.int64) * num_rows + rows
    tl.store(split_value + place, value_sum, mask=rows < num_rows)
    tl.store(split_slope + place, slope_sum, mask=rows < num_rows)


@triton.jit(do_not_specialize=["num_rows"])
def divergence_merge_kernel(split_value, split_slope, value, slope, num_rows, num_splits, ROWS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_real = rows < num_rows
    value_sum = tl.zeros([ROWS], tl.float32)
    slope_sum = tl.zeros([ROWS], tl.float32)
    place = rows.to(tl.int64)
    for _ in range(0, num_splits):
        value_sum += tl.load(split_value + place, mask=is_real, other=0.0)
        slope_sum += tl.load(split_slope + place, mask=is_real, other=0.0)
        place += num_rows
    tl.store(value + rows, value_sum, mask=is_real)
    tl.store(slope + rows, slope_sum, mask=is_real)


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


@triton.jit(
    do_not_specialize=["num_rows", "vocab_size", "num_teachers", "first_row", "last_row", "first_column", "last_column"]
)
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
    mixture = _mixture(
        teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, log_weight,
        num_teachers, row, column, num_rows, teacher_num_columns, teacher_width,
        teacher_hidden_stride, teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride,
        vocab_size, inverse_temperature, softcap, IS_MIXTURE, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA,
        TEACHER_EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
    )  # fmt: skip
    logits, student = _log_probabilities(
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


def measure(
    rows: DivergenceRows, student: Normalizer, teachers: Normalizer, config: TileConfig, *, use_tma: bool
) -> tuple[Tensor, Tensor]:
    """Divergence and sum of slopes [R]; workspace: two float32 numbers per row and split of the vocabulary.

    Args:
        rows: All hidden states and heads of one dtype: bfloat16, float16 or float32.
        student: Of [R]. teachers: Of [K * R].
        config: Sizes of the tiles.
        use_tma: Whether tiles come by the bulk copy engine (see `operands.can_use_tma`).
    """
    num_rows, device = rows.num_rows, rows.student.hidden.device
    result = torch.empty(2, num_rows, dtype=torch.float32, device=device)
    if num_rows == 0:
        return result[0], result[1]
    num_tiles = triton.cdiv(rows.student.vocab_size, config.block_columns)
    tiles_per_split = triton.cdiv(num_tiles, config.num_splits)
    num_splits = triton.cdiv(num_tiles, tiles_per_split)
    parts = torch.empty(2, num_splits, num_rows, dtype=torch.float32, device=device)
    divergence_kernel[(triton.cdiv(num_rows, config.block_rows) * num_splits,)](
        **_shared_arguments(rows, student, teachers, config, use_tma),
        split_value=parts[0],
        split_slope=parts[1],
        tiles_per_split=tiles_per_split,
        num_splits=num_splits,
    )
    divergence_merge_kernel[(triton.cdiv(num_rows, MERGE_ROWS),)](
        parts[0], parts[1], result[0], result[1], num_rows, num_splits, ROWS=MERGE_ROWS, num_warps=4
    )
    return result[0], result[1]


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
        **_shared_arguments(rows, found.student, found.teachers, config, use_tma),
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


def _shared_arguments(
    rows: DivergenceRows, student: Normalizer, teachers: Normalizer, config: TileConfig, use_tma: bool
) -> dict[str, Any]:
    factors = factor_arguments(rows.teachers.hidden, rows.teachers.weight, config, use_tma)
    return {
        **factor_arguments(rows.student.hidden, rows.student.weight, config, use_tma),
        **option_arguments(rows.student),
        **{f"teacher_{name}": factors[name] for name in TEACHER_FACTORS},
        "TEACHER_EVEN_WIDTH": factors["EVEN_WIDTH"],
        "teacher_bias": rows.student.hidden if rows.teachers.bias is None else rows.teachers.bias,
        "TEACHER_HAS_BIAS": rows.teachers.bias is not None,
        "vocab_size": rows.student.vocab_size,
        "row_max": student.row_max,
        "log_normalizer": student.log_normalizer,
        "teacher_max": teachers.row_max,
        "teacher_log_normalizer": teachers.log_normalizer,
        "log_weight": student.row_max if rows.log_weight is None else rows.log_weight.contiguous(),
        "num_teachers": rows.num_teachers,
        "IS_MIXTURE": rows.log_weight is not None,
        "GROUP_ROWS": config.group_rows,
        **divergence_arguments(rows.divergence),
    }


def divergence_arguments(divergence: Divergence) -> dict[str, Any]:
    """What `divergence_arithmetic.divergence_entries` takes."""
    return {
        "beta": divergence.beta,
        "clip": divergence.clip,
        "KIND": divergence.kind,
        "HAS_CLIP": divergence.token_clip is not None,
    }


def specimens(capability: int) -> Iterator[Specimen]:
    """Both tile kernels by every path of the device, for the kinds that need the least and the most, and the merge."""
    for use_tma, dtype in product_paths(capability):
        lighter = [] if dtype == torch.float32 else [("forward_kl", False), ("jsd", False)]
        for kind, is_mixture in [*lighter, ("reverse_kl", True), ("jsd", True)]:
            yield from _tile_specimens(capability, use_tma, dtype, kind, is_mixture)
    yield Specimen(
        name="divergence/merge",
        kernel=divergence_merge_kernel,
        signature=dict.fromkeys(["split_value", "split_slope", "value", "slope"], "*fp32")
        | {"num_rows": "i32", "num_splits": "i32"},
        constexprs={"ROWS": MERGE_ROWS},
        num_warps=4,
        num_stages=3,
    )


def _tile_specimens(
    capability: int, use_tma: bool, dtype: torch.dtype, kind: str, is_mixture: bool
) -> Iterator[Specimen]:
    config = divergence_config(capability, dtype, use_tma)
    signature, constexprs, divisible = factor_signature(dtype, config, use_tma)
    signature |= {f"teacher_{name}": signature[name] for name in TEACHER_FACTORS}
    signature |= OPTION_SIGNATURE | dict.fromkeys(["beta", "clip"], "fp32")
    signature |= dict.fromkeys(["row_max", "log_normalizer", "teacher_max", "teacher_log_normalizer"], "*fp32")
    signature |= {"teacher_bias": "*fp32", "log_weight": "*fp32", "vocab_size": "i32", "num_teachers": "i32"}
    constexprs |= {f"teacher_{name}": constexprs[name] for name in TEACHER_FACTORS if name in constexprs}
    constexprs |= {"TEACHER_EVEN_WIDTH": True, "HAS_BIAS": False, "TEACHER_HAS_BIAS": False, "HAS_SOFTCAP": False}
    constexprs |= {"KIND": kind, "HAS_CLIP": True, "IS_MIXTURE": is_mixture, "GROUP_ROWS": config.group_rows}
    divisible |= {f"teacher_{name}" for name in divisible}
    launch = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    expects = expected_instructions(capability, use_tma, dtype)
    path = f"{path_name(use_tma, dtype)}/{kind}{'/mixture' if is_mixture else ''}"
    forward = dict.fromkeys(["split_value", "split_slope"], "*fp32") | {"tiles_per_split": "i32", "num_splits": "i32"}
    yield Specimen(
        name=f"divergence/{path}",
        kernel=divergence_kernel,
        signature=signature | forward,
        constexprs=constexprs,
        divisible_by_16=divisible,
        expects=expects,
        **launch,
    )
    backward = {"slope": "*fp32", "upstream": "*fp32", "out": f"*{TRITON_TYPES[dlogits_dtype(dtype)]}"}
    backward |= dict.fromkeys(["out_stride", "first_row", "last_row", "first_column", "last_column"], "i32")
    yield Specimen(
        name=f"divergence_dlogits/{path}",
        kernel=divergence_dlogits_kernel,
        signature=signature | backward | {"temperature": "fp32"},
        constexprs=constexprs | {"SLICES": config.slices},
        divisible_by_16=divisible | {"out", "out_stride"},
        expects=expects,
        **launch,
    )
