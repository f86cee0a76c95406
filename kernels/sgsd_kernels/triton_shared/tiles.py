"""Tiles of a matrix product, read by pointers or by Hopper's bulk copy engine (TMA)."""

import triton
import triton.language as tl

from sgsd_kernels.triton_shared.arithmetic import INTERPRETED


@triton.jit
def load_tile(
    source,
    first_row,
    first_column,
    num_rows,
    num_columns,
    row_stride,
    column_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    USE_TMA: tl.constexpr,
    EVEN_COLUMNS: tl.constexpr,
):
    """The block [ROWS, COLUMNS] of a matrix; columns that do not exist are 0.

    Rows beyond the last are 0 or repeat the last: callers do not use them. `source` is a tensor descriptor with
    USE_TMA, else a pointer. EVEN_COLUMNS promises that COLUMNS divides `num_columns`.
    """
    if USE_TMA:
        tile = source.load([first_row, first_column])
    else:
        rows = tl.minimum(first_row + tl.arange(0, ROWS), num_rows - 1).to(tl.int64)
        columns = first_column + tl.arange(0, COLUMNS)
        addresses = source + rows[:, None] * row_stride + columns[None, :].to(tl.int64) * column_stride
        if EVEN_COLUMNS:
            tile = tl.load(addresses)
        else:
            tile = tl.load(addresses, mask=(columns < num_columns)[None, :], other=0.0)
    if INTERPRETED:
        tile = tile.to(tl.float32)  # the interpreter would multiply the bits of half-precision numbers
    return tile


@triton.jit
def product_tile(
    left,
    right,
    first_left,
    first_right,
    num_left,
    num_right,
    width,
    left_stride,
    left_column_stride,
    right_stride,
    right_column_stride,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    USE_TMA: tl.constexpr,
    EVEN_WIDTH: tl.constexpr,
):
    """The block [LEFT, RIGHT] of ``left @ right.T`` in float32: left [num_left, width], right [num_right, width]."""
    product = tl.zeros([LEFT, RIGHT], dtype=tl.float32)
    for start in range(0, width, WIDTH):
        a = load_tile(
            left, first_left, start, num_left, width,
            left_stride, left_column_stride, LEFT, WIDTH, USE_TMA, EVEN_WIDTH,
        )  # fmt: skip
        b = load_tile(
            right, first_right, start, num_right, width,
            right_stride, right_column_stride, RIGHT, WIDTH, USE_TMA, EVEN_WIDTH,
        )  # fmt: skip
        product = tl.dot(a, tl.trans(b), product, input_precision="ieee")
    return product


@triton.jit
def halves(tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The left and the right half of `tile` [ROWS, COLUMNS], each [ROWS, COLUMNS / 2].

    An epilogue that works on one half after the other needs fewer registers.
    """
    return tl.split(tl.permute(tl.reshape(tile, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def tile_coordinates(num_row_blocks, num_column_blocks, GROUP_ROWS: tl.constexpr):
    """This program's (row block, column block).

    Row blocks go fastest within a group of GROUP_ROWS, so that the programs in flight share a few blocks of columns
    while the group's rows stay in the cache.
    """
    program = tl.program_id(0)
    group = program // (GROUP_ROWS * num_column_blocks)
    first = group * GROUP_ROWS
    size = tl.minimum(num_row_blocks - first, GROUP_ROWS)
    place = program - group * GROUP_ROWS * num_column_blocks
    return first + place % size, place // size
