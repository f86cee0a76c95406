"""Sizes that were chosen for a device, by the arithmetic that chose them."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from sgsd_kernels.head.gradients import WEIGHT_PART_LIMIT, columns_of_weight_part
from sgsd_kernels.head.triton import TritonPasses
from sgsd_kernels.triton_shared.configs import TileConfig, scan_config

from tests.kernels.head_cases import rows_of_width

MIB = 2**20
WIDTHS = (896, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 5120, 8192)
"""Of models that are trained in this way: Qwen2.5 and 3, Llama 3, SmolLM."""
PARTS = 8
"""In how many pieces a tile's factors are read: programs in flight read the same piece at nearly the same time."""


@pytest.mark.parametrize("width", WIDTHS)
def test_chunks_of_a_learning_head_are_multiples_of_256_columns(width: int) -> None:
    _, chunk = TritonPasses(90).gradient_chunk(rows_of_width(width))
    columns = columns_of_weight_part(width, chunk)
    assert columns % 256 == 0
    assert columns * width <= WEIGHT_PART_LIMIT
    assert columns * width > WEIGHT_PART_LIMIT - 256 * width or columns == chunk


def test_a_chunk_is_never_empty_and_a_narrow_one_is_as_wide_as_it_is() -> None:
    assert columns_of_weight_part(width=2**30, most=8192) == 1
    assert columns_of_weight_part(width=2**20, most=8192) == 16
    assert columns_of_weight_part(width=8, most=100) == 100


def traffic_per_tile(group_rows: int, tiles: TileConfig, width: int, num_row_blocks: int, cache_bytes: int) -> float:
    """Bytes read from memory per tile of the scan, by 132 programs in lockstep before a cache that keeps what it used
    last; from the second wave of programs on, when the cache is filled."""
    cache: OrderedDict[tuple[str, int, int], int] = OrderedDict()
    held = read = num_tiles = 0
    sizes = {side: block * width * 2 // PARTS for side, block in (("h", tiles.block_rows), ("w", tiles.block_columns))}
    for wave in range(3):
        for tile in range(3):
            for part in range(PARTS):
                for program in range(132 * wave, 132 * (wave + 1)):
                    group, place = divmod(program, group_rows * tiles.num_splits)
                    size = min(group_rows, num_row_blocks - group * group_rows)
                    split, row = divmod(place, size)
                    for key in (("h", group * group_rows + row, part), ("w", 1000 * split + tile, part)):
                        if key in cache:
                            cache.move_to_end(key)
                            continue
                        cache[key] = sizes[key[0]]
                        held += cache[key]
                        read += cache[key] if wave > 0 else 0
                        while held > cache_bytes:
                            held -= cache.popitem(last=False)[1]
            num_tiles += 132 if wave > 0 else 0
    return read / num_tiles


@pytest.mark.parametrize(("width", "chosen"), [(1024, 64), (2048, 32), (4096, 16), (5120, 12), (8192, 12)])
def test_groups_of_row_blocks_keep_hidden_states_in_the_cache(width: int, chosen: int) -> None:
    """In a half of Hopper's 50 MiB: each serves half of the multiprocessors. 64 row blocks overrun it from 2048 on."""
    tiles = scan_config(90, torch.bfloat16, use_tma=True)
    assert tiles.group_rows_of(width, torch.bfloat16) == chosen
    traffic = {
        group: traffic_per_tile(group, tiles, width, num_row_blocks=1152, cache_bytes=25 * MIB)
        for group in (64, 32, 16, 12, 8)
    }
    assert traffic[chosen] <= 1.05 * min(traffic.values())
    assert width < 2048 or traffic[64] > 2 * traffic[chosen]


def test_a_group_is_never_larger_than_asked_for_nor_than_twelve_row_blocks_must() -> None:
    assert TileConfig(128, 256, 64, 8, 4, group_rows=2).group_rows_of(64, torch.bfloat16) == 2
    assert TileConfig(128, 256, 64, 8, 4).group_rows_of(10**6, torch.bfloat16) == 12
