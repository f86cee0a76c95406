"""The divergence by Triton kernels that keep logits on the chip: implementation ``triton``.

Forward multiplies student and teachers with the head twice: for the log-sum-exps, then for the entries. Backward does
it once more, into a bounded chunk of the logits' gradient, [R, columns] in the dtype of the products that follow, which
are the library's. Nothing else grows with the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.divergence.kernels import dlogits as dlogits_kernels
from sgsd_kernels.divergence.kernels import measure as measure_kernels
from sgsd_kernels.divergence.kernels.operands import divergence_config
from sgsd_kernels.divergence.passes import DivergenceRows, RowDivergence
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer
from sgsd_kernels.head.triton import TritonPasses
from sgsd_kernels.triton_shared.configs import TileConfig
from sgsd_kernels.triton_shared.operands import can_use_tma


@dataclass(frozen=True, slots=True)
class TritonDivergence:
    """`sgsd_kernels.divergence.passes.DivergencePasses` for one device."""

    head: TritonPasses
    """The scan for log-sum-exps, on the same device."""
    tiles: TileConfig | None = None
    """Sizes of the tiles here; None takes those of ``head``, or the table's."""

    @classmethod
    def for_device(cls, device: torch.device) -> TritonDivergence:
        """The passes for a CUDA device, or for the interpreter's idea of one."""
        return cls(TritonPasses.for_device(device))

    def measure(self, rows: DivergenceRows) -> RowDivergence:
        student, teachers = self._normalizer(rows.student), self._normalizer(rows.teachers)
        value, slope = measure_kernels.measure(rows, student, teachers, self._config(rows), use_tma=self._use_tma(rows))
        return RowDivergence(value, slope, student, teachers)

    def gradient_chunk(self, rows: DivergenceRows) -> tuple[int, int]:
        return self.head.gradient_chunk(rows.student)

    def dlogits(
        self, rows: DivergenceRows, block: slice, span: HeadSpan, found: RowDivergence, upstream: Tensor
    ) -> Tensor:
        return dlogits_kernels.dlogits(
            rows, block, span.columns, found, upstream, self._config(rows), use_tma=self._use_tma(rows)
        )

    def _normalizer(self, rows: HeadRows) -> Normalizer:
        statistics = self.head.scan(rows, entropy=False)
        return Normalizer(statistics.row_max, statistics.log_normalizer)

    def _config(self, rows: DivergenceRows) -> TileConfig:
        dtype, use_tma = rows.student.weight.dtype, self._use_tma(rows)
        table = divergence_config(self.head.capability, dtype, use_tma)
        return self.tiles or self.head.tiles or table

    def _use_tma(self, rows: DivergenceRows) -> bool:
        factors = (rows.student.hidden, rows.student.weight, rows.teachers.hidden, rows.teachers.weight)
        return self.head.allow_tma and self.head.capability >= 90 and can_use_tma(*factors)
