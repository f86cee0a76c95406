"""The divergence of student and teachers, tile by tile, with logits that never leave the chip.

A program holds a tile of the teachers' mixture and a tile of the student, and sums entries and slopes over a split of
the vocabulary; a second kernel adds the splits in a fixed order. The log-sum-exps come from `head.kernels.scan`.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.divergence.kernels.arithmetic import divergence_entries
from sgsd_kernels.divergence.kernels.operands import has_variants, shared_arguments, tile_specimens
from sgsd_kernels.divergence.kernels.tiles import log_probabilities, mixture_tile
from sgsd_kernels.divergence.passes import DivergenceRows
from sgsd_kernels.head.passes import Normalizer
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.configs import TileConfig
from sgsd_kernels.triton_shared.operands import option_variants
from sgsd_kernels.triton_shared.tiles import halves, tile_coordinates

MERGE_ROWS = 128


@triton.jit
def _add_halves(
    value_sum,
    slope_sum,
    student,
    mixture,
    beta,
    clip,
    KIND: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Both sums with the entries of a block [ROWS, COLUMNS], one half after the other."""
    left_student, right_student = halves(student, ROWS, COLUMNS)
    left_mixture, right_mixture = halves(mixture, ROWS, COLUMNS)
    value, slope, _ = divergence_entries(left_student, left_mixture, beta, clip, KIND, HAS_CLIP)
    value_sum += tl.sum(value, axis=1)
    slope_sum += tl.sum(slope, axis=1)
    value, slope, _ = divergence_entries(right_student, right_mixture, beta, clip, KIND, HAS_CLIP)
    return value_sum + tl.sum(value, axis=1), slope_sum + tl.sum(slope, axis=1)


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
    SLICES: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
):
    row_block, split = tile_coordinates(tl.cdiv(num_rows, ROWS), num_splits, GROUP_ROWS)
    first_row = row_block * ROWS
    value_sum = tl.zeros([ROWS], tl.float32)
    slope_sum = tl.zeros([ROWS], tl.float32)
    first_tile = split * tiles_per_split
    last_tile = tl.minimum(first_tile + tiles_per_split, tl.cdiv(vocab_size, COLUMNS))
    for tile in range(first_tile, last_tile):
        mixture = mixture_tile(
            teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, log_weight,
            num_teachers, first_row, tile * COLUMNS, num_rows, teacher_num_columns, teacher_width,
            teacher_hidden_stride, teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride,
            vocab_size, inverse_temperature, softcap, IS_MIXTURE, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA,
            TEACHER_EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
        )  # fmt: skip
        _, student = log_probabilities(
            hidden, weight, bias, row_max, log_normalizer, first_row, tile * COLUMNS, num_rows, num_columns, width,
            hidden_stride, hidden_column_stride, weight_stride, weight_column_stride, vocab_size, inverse_temperature,
            softcap, HAS_BIAS, HAS_SOFTCAP, USE_TMA, EVEN_WIDTH, ROWS, COLUMNS, WIDTH,
        )  # fmt: skip
        if SLICES == 4:
            left_student, student = halves(student, ROWS, COLUMNS)
            left_mixture, mixture = halves(mixture, ROWS, COLUMNS)
            value_sum, slope_sum = _add_halves(
                value_sum, slope_sum, left_student, left_mixture, beta, clip, KIND, HAS_CLIP, ROWS, COLUMNS // 2
            )
            value_sum, slope_sum = _add_halves(
                value_sum, slope_sum, student, mixture, beta, clip, KIND, HAS_CLIP, ROWS, COLUMNS // 2
            )
        else:
            value_sum, slope_sum = _add_halves(
                value_sum, slope_sum, student, mixture, beta, clip, KIND, HAS_CLIP, ROWS, COLUMNS
            )
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


def measure(
    rows: DivergenceRows, student: Normalizer, teachers: Normalizer, config: TileConfig, *, use_tma: bool
) -> tuple[Tensor, Tensor]:
    """Divergence and sum of slopes [R]; workspace: two float32 numbers per row and split of the vocabulary.

    Args:
        rows: All hidden states and heads of one dtype: bfloat16, float16 or float32.
        student: Of [R]. teachers: Of [K * R].
        config: Sizes of the tiles.
        use_tma: Whether tiles come by the bulk copy engine (see `triton_shared.operands.can_use_tma`).
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
        **shared_arguments(rows, student, teachers, config, use_tma),
        split_value=parts[0],
        split_slope=parts[1],
        tiles_per_split=tiles_per_split,
        num_splits=num_splits,
        SLICES=config.slices,
    )
    divergence_merge_kernel[(triton.cdiv(num_rows, MERGE_ROWS),)](
        parts[0], parts[1], result[0], result[1], num_rows, num_splits, ROWS=MERGE_ROWS, num_warps=4
    )
    return result[0], result[1]


def specimens(capability: int) -> Iterator[Specimen]:
    """The tile kernel by every path of the device, and the merge."""
    forward = dict.fromkeys(["split_value", "split_slope"], "*fp32") | {"tiles_per_split": "i32", "num_splits": "i32"}
    for path, _, config, parts in tile_specimens(capability):
        parts["signature"] |= forward
        parts["constexprs"] |= {"SLICES": config.slices}
        specimen = Specimen(name=f"divergence/{path}", kernel=divergence_kernel, **parts)
        yield specimen
        if has_variants(specimen):
            yield from option_variants(specimen)
    yield Specimen(
        name="divergence/merge",
        kernel=divergence_merge_kernel,
        signature=dict.fromkeys(["split_value", "split_slope", "value", "slope"], "*fp32")
        | {"num_rows": "i32", "num_splits": "i32"},
        constexprs={"ROWS": MERGE_ROWS},
        num_warps=4,
        num_stages=3,
    )
