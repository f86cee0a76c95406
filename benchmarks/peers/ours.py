"""This repository's kernels, one provider per implementation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import torch
from sgsd_kernels import DivergenceKind, Implementation, linear_divergence, linear_logprob, resolve_implementation
from sgsd_kernels.dispatch import Operation, Workload
from torch import Tensor

from benchmarks.peers.contracts import DivergenceFunction, DivergencePeer, LogprobFunction, RowLogprobPeer

IMPLEMENTATIONS: tuple[Implementation, ...] = tuple(name for name in get_args(Implementation) if name != "auto")


def why_unavailable(implementation: str, operation: Operation) -> Callable[[torch.device], str | None]:
    """The dispatch's own sentence on why an implementation cannot run on a device, for bfloat16 factors."""

    def why(device: torch.device) -> str | None:
        sample = torch.empty(1, 8, device=device, dtype=torch.bfloat16)
        try:
            resolve_implementation(implementation, Workload.of(operation, sample))
        except ValueError as error:
            return str(error).split(": ", 1)[-1].rsplit("; 'auto'", 1)[0]
        return None

    return why


def chosen_by_auto(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What ``auto`` stands for, by operation."""
    sample = torch.empty(1, 8, device=device, dtype=dtype)
    return {name: resolve_implementation("auto", Workload.of(name, sample)) for name in get_args(Operation)}


def label(implementation: str) -> str:
    """How tables name one of our implementations."""
    return f"sgsd_kernels {implementation}"


def _logprob(implementation: Implementation) -> LogprobFunction:
    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return linear_logprob(hidden, weight, targets, implementation=implementation).logprob

    return compute


def _divergence(implementation: Implementation) -> DivergenceFunction:
    def compute(student: Tensor, teachers: Tensor, weight: Tensor, kind: DivergenceKind) -> Tensor:
        return linear_divergence(student, teachers, weight, kind=kind, implementation=implementation).mean()

    return compute


ROW_LOGPROB = [
    RowLogprobPeer(label(name), partial(_logprob, name), why_unavailable(name, "linear_logprob"))
    for name in IMPLEMENTATIONS
]

DIVERGENCE = [
    DivergencePeer(
        label(name), partial(_divergence, name), why_unavailable(name, "linear_divergence"), has_mixtures=True
    )
    for name in IMPLEMENTATIONS
]
