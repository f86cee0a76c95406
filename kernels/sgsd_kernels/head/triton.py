"""The head by Triton kernels that keep logits on the chip: implementation ``triton``.

Forward stores four float32 numbers per row and split of the vocabulary. Backward recomputes logits into a bounded
chunk of their gradient, [R, columns] in the dtype of the products that follow, which are the library's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.head.kernels import dlogits as dlogits_kernels
from sgsd_kernels.head.kernels import scan as scan_kernels
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer, RowStatistics, Upstream
from sgsd_kernels.triton_shared.arithmetic import INTERPRETED
from sgsd_kernels.triton_shared.assembler import warn_of_assembler
from sgsd_kernels.triton_shared.configs import INTERPRETER_TILES, TileConfig, dlogits_config, scan_config
from sgsd_kernels.triton_shared.operands import can_use_tma

GRADIENT_BYTES = 128 * 2**20
"""Of one chunk of dlogits."""
ROW_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class TritonPasses:
    """`sgsd_kernels.head.passes.HeadPasses` for one device.

    Args:
        capability: The device's compute capability, as 80, 90, 100.
        allow_tma: Whether the bulk copy engine may be used where the factors allow it.
        tiles: Sizes of all tiles; None takes the table's.
    """

    capability: int
    allow_tma: bool = True
    tiles: TileConfig | None = None

    @classmethod
    def for_device(cls, device: torch.device) -> TritonPasses:
        """The passes for a CUDA device, or for the interpreter's idea of one."""
        if INTERPRETED:
            return cls(capability=90, tiles=INTERPRETER_TILES)
        major, minor = torch.cuda.get_device_capability(device)
        warn_of_assembler(10 * major + minor)
        return cls(capability=10 * major + minor)

    def scan(self, rows: HeadRows, *, entropy: bool) -> RowStatistics:
        use_tma = self._use_tma(rows)
        config = self.tiles or scan_config(self.capability, rows.weight.dtype, use_tma)
        return scan_kernels.scan(rows, config, use_tma=use_tma, entropy=entropy)

    def gradient_chunk(self, rows: HeadRows) -> tuple[int, int]:
        row_chunk = max(1, min(rows.num_rows, ROW_CHUNK))
        entry_bytes = dlogits_kernels.dlogits_dtype(rows.weight.dtype).itemsize
        return row_chunk, max(256, GRADIENT_BYTES // (row_chunk * entry_bytes) // 256 * 256)

    def dlogits(self, rows: HeadRows, span: HeadSpan, normalizer: Normalizer, upstream: Upstream) -> Tensor:
        use_tma = self._use_tma(rows)
        config = self.tiles or dlogits_config(self.capability, rows.weight.dtype, use_tma)
        return dlogits_kernels.dlogits(rows, span.columns, normalizer, upstream, config, use_tma=use_tma)

    def _use_tma(self, rows: HeadRows) -> bool:
        return self.allow_tma and self.capability >= 90 and can_use_tma(rows.hidden, rows.weight)
