"""Sizes of tiles, per architecture and dtype. They never depend on the number of rows.

So a row's bits do not depend on the batch that it comes in. The choices are those that compile without spilling (see
`python -m benchmarks.compile_report`); their speed was not measured on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GROUP_BYTES = 16 * 2**20
"""Of hidden states that programs in flight share: a third of Hopper's 50 MiB L2, whose halves each serve half of the
multiprocessors, and less than the 40 MiB of an A100."""
FEWEST_GROUP_ROWS = 12
"""With fewer row blocks in a group the head would be read too often."""


@dataclass(frozen=True, slots=True)
class TileConfig:
    """How one kernel cuts ``hidden @ weight.T``."""

    block_rows: int
    block_columns: int
    block_width: int
    """Entries of hidden multiplied at a time."""
    num_warps: int
    num_stages: int
    slices: int = 1
    """1 or 2: in how many parts the epilogue works through a tile's columns. Two need fewer registers."""
    group_rows: int = 64
    """The most row blocks that share columns in the cache; see `group_rows_of`."""
    num_splits: int = 33
    """Parts of the vocabulary scanned by different programs. 33 fill 132 multiprocessors whatever the rows, and cut a
    vocabulary of 151,936 into equal parts."""

    def group_rows_of(self, width: int, dtype: torch.dtype) -> int:
        """Row blocks that share columns in the cache, of hidden states [rows, ``width``]; bits do not depend on it.

        Their hidden states are at most `GROUP_BYTES`, so that they stay in the cache while the columns stream through.
        """
        block_bytes = self.block_rows * width * dtype.itemsize
        return max(min(FEWEST_GROUP_ROWS, self.group_rows), min(self.group_rows, GROUP_BYTES // block_bytes))


DESKTOP_TILES = TileConfig(128, 128, 64, num_warps=8, num_stages=3)
"""Of compute capability 12.x (RTX 50, RTX PRO 6000, Spark), which has 99 KiB of shared memory and neither wgmma nor
tcgen05."""


def scan_config(capability: int, dtype: torch.dtype, use_tma: bool) -> TileConfig:
    """The tiles of the forward scan on a device of the compute ``capability`` (80, 90, 100, 120 ...)."""
    if dtype == torch.float32:
        return TileConfig(64, 64, 16, num_warps=8, num_stages=3)
    if use_tma and capability >= 120:
        return DESKTOP_TILES
    if use_tma and capability >= 100:
        return TileConfig(128, 128, 64, num_warps=8, num_stages=4)
    if use_tma:
        return TileConfig(128, 256, 64, num_warps=8, num_stages=4, slices=2)
    if 90 <= capability < 120:
        return TileConfig(128, 128, 64, num_warps=8, num_stages=3)
    return TileConfig(128, 128, 32, num_warps=8, num_stages=4, group_rows=32, num_splits=27)


def dlogits_config(capability: int, dtype: torch.dtype, use_tma: bool) -> TileConfig:
    """The tiles of the backward recomputation."""
    if dtype == torch.float32:
        return TileConfig(64, 64, 16, num_warps=8, num_stages=3)
    if use_tma and capability >= 120:
        return DESKTOP_TILES
    if use_tma:
        return TileConfig(128, 256, 64, num_warps=8, num_stages=4, slices=2)
    if 90 <= capability < 120:
        return TileConfig(128, 128, 64, num_warps=8, num_stages=3)
    return TileConfig(128, 128, 32, num_warps=8, num_stages=4, group_rows=32)


INTERPRETER_TILES = TileConfig(16, 32, 16, num_warps=4, num_stages=1, slices=2, group_rows=2, num_splits=3)
"""Small and odd enough that tests on small shapes cross every boundary."""
