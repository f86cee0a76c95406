"""What a peer offers, in the one form that the benchmarks call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sgsd_kernels import DivergenceKind
from torch import Tensor

from benchmarks.providers import Precision, Question, available_anywhere

LogprobFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden [N, D], weight [V, D], targets [N]) -> log-probabilities [N], or their sum."""

DivergenceFunction = Callable[[Tensor, Tensor, Tensor, DivergenceKind], Tensor]
"""(student_hidden [N, D], teacher_hidden [K, N, D], weight [V, D], kind) -> mean over rows, a scalar; beta is 1/2."""


@dataclass(frozen=True, slots=True)
class RowLogprobPeer:
    """A head that gives log-probabilities, differentiable in hidden and weight."""

    name: str
    make: Callable[[], LogprobFunction]
    """Imports what it needs; called once per case."""
    why_unavailable: Callable[[torch.device], str | None] = available_anywhere
    precision: Precision = "float32"
    question: Question = "rows"
    note: str = ""


@dataclass(frozen=True, slots=True)
class DivergencePeer:
    """A divergence of one teacher, or of an even mixture of them, differentiable in the student's hidden and weight."""

    name: str
    make: Callable[[], DivergenceFunction]
    why_unavailable: Callable[[torch.device], str | None] = available_anywhere
    precision: Precision = "float32"
    has_mixtures: bool = False
    note: str = ""
