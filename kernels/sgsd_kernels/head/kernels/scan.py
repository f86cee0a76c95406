"""Forward: per row the maximum, the sum of exponentials and the target's logit, with logits that never leave the chip.

Each program takes a block of rows and a split of the vocabulary, walks the split tile by tile and keeps running
statistics in registers. A second kernel merges the splits in a fixed order: the same input gives the same bits, and a
row's bits do not depend on its batch.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from sgsd_kernels.head.passes import HeadRows, RowStatistics
from sgsd_kernels.triton_shared.arithmetic import LOWEST, NEGATIVE_INFINITY, absorb, exponential, final_logits
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.configs import TileConfig, scan_config
from sgsd_kernels.triton_shared.operands import (
    OPTION_SIGNATURE,
    ROWS_OF_ANY_LENGTH,
    expected_instructions,
    factor_arguments,
    factor_signature,
    option_arguments,
    option_variants,
    path_name,
    product_paths,
)
from sgsd_kernels.triton_shared.tiles import halves, product_tile, tile_coordinates

MERGE_ROWS = 128


@triton.jit(do_not_specialize=["num_rows", "vocab_size", "tiles_per_split"])
def scan_kernel(
    hidden,
    weight,
    bias,
    targets,
    split_max,
    split_total,
    split_centred,
    split_target,
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
    tiles_per_split,
    num_splits,
    ENTROPY: tl.constexpr,
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
    row_block, split = tile_coordinates(tl.cdiv(num_rows, ROWS), num_splits, GROUP_ROWS)
    rows = row_block * ROWS + tl.arange(0, ROWS)
    is_real = rows < num_rows
    target = tl.load(targets + rows, mask=is_real, other=-1).to(tl.int32)
    row_max = tl.full([ROWS], NEGATIVE_INFINITY, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    centred = tl.zeros([ROWS], tl.float32)
    target_logit = tl.full([ROWS], NEGATIVE_INFINITY, tl.float32)

    first_tile = split * tiles_per_split
    last_tile = tl.minimum(first_tile + tiles_per_split, tl.cdiv(vocab_size, COLUMNS))
    for tile in range(first_tile, last_tile):
        raw = product_tile(
            hidden, weight, row_block * ROWS, tile * COLUMNS, num_rows, num_columns, width,
            hidden_stride, hidden_column_stride, weight_stride, weight_column_stride,
            ROWS, COLUMNS, WIDTH, USE_TMA, EVEN_WIDTH,
        )  # fmt: skip
        first_column = tile * COLUMNS
        columns = first_column + tl.arange(0, COLUMNS // SLICES)
        if SLICES == 2:
            left, right = halves(raw, ROWS, COLUMNS)
            logits = final_logits(left, columns, bias, vocab_size, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)
            row_max, total, centred, target_logit = absorb(
                logits, first_column, target, row_max, total, centred, target_logit, ENTROPY, COLUMNS // 2
            )
            raw = right
            first_column += COLUMNS // 2
            columns += COLUMNS // 2
        logits = final_logits(raw, columns, bias, vocab_size, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)
        row_max, total, centred, target_logit = absorb(
            logits, first_column, target, row_max, total, centred, target_logit, ENTROPY, COLUMNS // SLICES
        )

    place = split.to(tl.int64) * num_rows + rows
    tl.store(split_max + place, row_max, mask=is_real)
    tl.store(split_total + place, total, mask=is_real)
    tl.store(split_target + place, target_logit, mask=is_real)
    if ENTROPY:
        tl.store(split_centred + place, centred, mask=is_real)


@triton.jit(do_not_specialize=["num_rows"])
def merge_kernel(
    split_max,
    split_total,
    split_centred,
    split_target,
    row_max,
    total,
    centred,
    target_logit,
    num_rows,
    num_splits,
    ENTROPY: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_real = rows < num_rows
    highest = tl.full([ROWS], NEGATIVE_INFINITY, tl.float32)
    found = tl.full([ROWS], NEGATIVE_INFINITY, tl.float32)
    place = rows.to(tl.int64)
    for _ in range(0, num_splits):
        highest = tl.maximum(highest, tl.load(split_max + place, mask=is_real, other=0.0))
        found = tl.maximum(found, tl.load(split_target + place, mask=is_real, other=0.0))
        place += num_rows
    anchor = tl.where(highest == NEGATIVE_INFINITY, 0.0, highest)
    sum_total = tl.zeros([ROWS], tl.float32)
    sum_centred = tl.zeros([ROWS], tl.float32)
    place = rows.to(tl.int64)
    for _ in range(0, num_splits):
        shift = tl.load(split_max + place, mask=is_real, other=0.0) - anchor
        scale = exponential(shift)
        part = tl.load(split_total + place, mask=is_real, other=0.0)
        sum_total += scale * part
        if ENTROPY:
            moved = tl.load(split_centred + place, mask=is_real, other=0.0) + tl.maximum(shift, LOWEST) * part
            sum_centred += scale * moved
        place += num_rows
    tl.store(row_max + rows, highest, mask=is_real)
    tl.store(total + rows, sum_total, mask=is_real)
    tl.store(target_logit + rows, found, mask=is_real)
    if ENTROPY:
        tl.store(centred + rows, sum_centred, mask=is_real)


def scan(rows: HeadRows, config: TileConfig, *, use_tma: bool, entropy: bool) -> RowStatistics:
    """Statistics of every row; workspace: 3 or 4 float32 numbers per row and split of the vocabulary.

    Args:
        rows: hidden and weight of one dtype: bfloat16, float16 or float32.
        config: Sizes of the tiles.
        use_tma: Whether tiles come by the bulk copy engine (see `triton_shared.operands.can_use_tma`).
        entropy: Whether to sum what the entropy needs.
    """
    num_rows, device = rows.num_rows, rows.hidden.device
    result = torch.empty(4 if entropy else 3, num_rows, dtype=torch.float32, device=device)
    statistics = RowStatistics(result[0], result[1], result[3] if entropy else None, result[2])
    if num_rows == 0:
        return statistics
    num_tiles = triton.cdiv(rows.vocab_size, config.block_columns)
    tiles_per_split = triton.cdiv(num_tiles, config.num_splits)
    num_splits = triton.cdiv(num_tiles, tiles_per_split)
    parts = torch.empty(len(result), num_splits, num_rows, dtype=torch.float32, device=device)
    scan_kernel[(triton.cdiv(num_rows, config.block_rows) * num_splits,)](
        **factor_arguments(rows.hidden, rows.weight, config, use_tma),
        **option_arguments(rows),
        vocab_size=rows.vocab_size,
        targets=rows.targets,
        split_max=parts[0],
        split_total=parts[1],
        split_target=parts[2],
        split_centred=parts[-1],
        tiles_per_split=tiles_per_split,
        num_splits=num_splits,
        ENTROPY=entropy,
        SLICES=config.slices,
        GROUP_ROWS=config.group_rows_of(rows.hidden.shape[1], rows.hidden.dtype),
    )
    merge_kernel[(triton.cdiv(num_rows, MERGE_ROWS),)](
        parts[0],
        parts[1],
        parts[-1],
        parts[2],
        statistics.row_max,
        statistics.total,
        result[-1],
        statistics.target_logit,
        num_rows,
        num_splits,
        ENTROPY=entropy,
        ROWS=MERGE_ROWS,
        num_warps=4,
    )
    return statistics


def specimens(capability: int) -> Iterator[Specimen]:
    """The scan by every path of the device, with and without entropy and with each option, and the merge."""
    for use_tma, dtype in product_paths(capability):
        yield _specimen(capability, dtype, use_tma, entropy=False)
        yield _specimen(capability, dtype, use_tma, entropy=True)
    use_tma = capability >= 90
    fastest = _specimen(capability, torch.bfloat16, use_tma, entropy=True)
    yield from option_variants(fastest)
    yield fastest.variant("one", num_columns=1, num_splits=1)  # a vocabulary of one token
    yield _specimen(capability, torch.float16, use_tma, entropy=True)
    by_pointers = _specimen(capability, torch.bfloat16, False, entropy=True)
    yield by_pointers.variant("uneven", unaligned=ROWS_OF_ANY_LENGTH, EVEN_WIDTH=False)
    yield Specimen(
        name="scan/merge",
        kernel=merge_kernel,
        signature=dict.fromkeys(
            [
                "split_max",
                "split_total",
                "split_centred",
                "split_target",
                "row_max",
                "total",
                "centred",
                "target_logit",
            ],
            "*fp32",
        )
        | {"num_rows": "i32", "num_splits": "i32"},
        constexprs={"ENTROPY": True, "ROWS": MERGE_ROWS},
        num_warps=4,
        num_stages=1,
    )


def _specimen(capability: int, dtype: torch.dtype, use_tma: bool, *, entropy: bool) -> Specimen:
    config = scan_config(capability, dtype, use_tma)
    factors, constexprs, divisible = factor_signature(dtype, config, use_tma)
    return Specimen(
        name=f"scan/{path_name(use_tma, dtype)}{'/entropy' if entropy else ''}",
        kernel=scan_kernel,
        signature=factors
        | OPTION_SIGNATURE
        | {"targets": "*i64", "vocab_size": "i32", "tiles_per_split": "i32", "num_splits": "i32"}
        | dict.fromkeys(["split_max", "split_total", "split_centred", "split_target"], "*fp32"),
        constexprs=constexprs
        | {"ENTROPY": entropy, "HAS_BIAS": False, "HAS_SOFTCAP": False}
        | {"SLICES": config.slices, "GROUP_ROWS": config.group_rows},
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        divisible_by_16=divisible,
        expects=expected_instructions(capability, use_tma, dtype),
    )
