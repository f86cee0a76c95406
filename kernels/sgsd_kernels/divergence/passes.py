"""What an implementation of `linear_divergence` works on, and what it has to provide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadRows, HeadSpan, Normalizer
from sgsd_kernels.head.products import accumulation_dtype


@dataclass(frozen=True, slots=True)
class TeacherHead:
    """The teachers' side of every row, detached."""

    hidden: Tensor
    """[K, N, D'], D' being the width of the teachers' head."""
    weight: Tensor | None
    """[V', D']; None where the teachers share the student's head and bias."""
    bias: Tensor | None
    """[V']."""
    log_weight: Tensor | None
    """[K, N] log of the mixture's weights, float32 or float64; None for one teacher."""

    @classmethod
    def of(
        cls, hidden: Tensor, weight: Tensor | None, bias: Tensor | None, mixture_weights: Tensor | None
    ) -> TeacherHead:
        """From ``hidden`` [N, D'] or [K, N, D'] and ``mixture_weights`` [K] or [N, K], None being uniform."""
        hidden = hidden.detach() if hidden.dim() == 3 else hidden.detach().unsqueeze(0)
        num_teachers, num_rows = hidden.shape[:2]
        log_weight: Tensor | None = None
        if num_teachers > 1:
            dtype = accumulation_dtype(hidden.dtype)
            if mixture_weights is None:
                mixture_weights = torch.full((num_teachers,), 1 / num_teachers, dtype=dtype, device=hidden.device)
            log_weight = mixture_weights.detach().to(dtype).log().expand(num_rows, num_teachers).T.contiguous()
        weight = None if weight is None else weight.detach()
        return cls(hidden, weight, None if bias is None else bias.detach().contiguous(), log_weight)


@dataclass(frozen=True, slots=True)
class DivergenceRows:
    """R rows of a student and of the K teachers of each."""

    student: HeadRows
    teachers: HeadRows
    """K * R rows: teacher k of row r is row k * R + r."""
    log_weight: Tensor | None
    """[K, R]; None for one teacher."""
    divergence: Divergence

    @classmethod
    def select(
        cls,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher: TeacherHead,
        options: HeadOptions,
        divergence: Divergence,
        rows: Tensor,
    ) -> DivergenceRows:
        """The chosen ``rows`` (indices) of student and teachers."""
        num_teachers, num_rows = teacher.hidden.shape[:2]
        head = (weight, bias) if teacher.weight is None else (teacher.weight, teacher.bias)
        teacher_hidden = teacher.hidden.flatten(0, 1)
        first = torch.arange(num_teachers, device=rows.device).unsqueeze(-1) * num_rows
        return cls(
            HeadRows.select(hidden, weight, bias, without_targets(hidden), options, rows),
            HeadRows.select(teacher_hidden, *head, without_targets(teacher_hidden), options, (first + rows).flatten()),
            None if teacher.log_weight is None else teacher.log_weight[:, rows],
            divergence,
        )

    @property
    def num_rows(self) -> int:
        return self.student.num_rows

    @property
    def num_teachers(self) -> int:
        return 1 if self.log_weight is None else self.log_weight.shape[0]

    def teacher_rows(self, teacher: int, block: slice) -> slice:
        """Where in ``teachers`` the rows ``block`` of one teacher are."""
        return slice(teacher * self.num_rows + block.start, teacher * self.num_rows + block.stop)


@dataclass(frozen=True, slots=True)
class RowDivergence:
    """What forward finds out about R rows; accumulation dtype."""

    value: Tensor
    """[R] the divergence."""
    slope: Tensor
    """[R] sum_v df_v/dlog q_v over the entries that the clip leaves."""
    student: Normalizer
    """Of [R]."""
    teachers: Normalizer
    """Of [K * R]."""

    def select(self, rows: Tensor) -> RowDivergence:
        """The chosen ``rows`` (indices)."""
        num_rows = self.value.numel()
        if rows.numel() == num_rows:
            return self
        teachers = (part.view(-1, num_rows)[:, rows].flatten() for part in _parts(self.teachers))
        student = (part[rows] for part in _parts(self.student))
        return RowDivergence(self.value[rows], self.slope[rows], Normalizer(*student), Normalizer(*teachers))


class DivergencePasses(Protocol):
    """The two parts that an implementation of the divergence consists of."""

    def measure(self, rows: DivergenceRows) -> RowDivergence:
        """Forward."""
        ...

    def gradient_chunk(self, rows: DivergenceRows) -> tuple[int, int]:
        """How many rows and columns `dlogits` is to be asked for at a time."""
        ...

    def dlogits(
        self, rows: DivergenceRows, block: slice, span: HeadSpan, found: RowDivergence, upstream: Tensor
    ) -> Tensor:
        """Backward: gradient [block, columns] of the student's product, recomputed.

        ``found`` and ``upstream`` are of all rows, ``span`` is of the student's head. With g_v = df_v/dlog q_v and
        G = sum_v g_v the gradient of the final logits is ``upstream * (g_v - q_v G)``; it is taken back through
        temperature and softcap, and returned in the dtype in which it is to be multiplied.
        """
        ...


def without_targets(hidden: Tensor) -> Tensor:
    """Targets [N] that are in no vocabulary, for rows that have none."""
    return torch.full(hidden.shape[:1], -1, dtype=torch.int64, device=hidden.device)


def _parts(normalizer: Normalizer) -> tuple[Tensor, Tensor]:
    return normalizer.row_max, normalizer.log_normalizer
