"""liger-kernel: fused linear cross entropies per row and summed, fused and chunked JSD."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.peers.contracts import DivergenceFunction, DivergencePeer, LogprobFunction, RowLogprobPeer
from benchmarks.providers import needs_cuda, why_missing

_PACKAGE = "liger_kernel"
_BETA = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}


def _why_no_scaled(device: torch.device) -> str | None:
    missing = why_missing(_PACKAGE)
    if missing or device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return missing
    return why_missing("cutlass")  # its Hopper kernel is written in the CuTe DSL


def _why_no_chunked(device: torch.device) -> str | None:
    return why_missing(_PACKAGE)


def _cross_entropy(reduction: str) -> LogprobFunction:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        bias = class_weight = None
        loss, *_ = LigerFusedLinearCrossEntropyFunction.apply(
            hidden, weight, targets, bias, class_weight, -100, 0.0, 0.0, reduction
        )
        return -loss

    return compute


def _scaled_cross_entropy() -> LogprobFunction:
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction

    def compute(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return -LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, targets)

    return compute


def _fused_jsd() -> DivergenceFunction:
    from liger_kernel.ops.fused_linear_jsd import LigerFusedLinearJSDFunction

    def compute(student: Tensor, teachers: Tensor, weight: Tensor, kind: str) -> Tensor:
        labels = None
        return LigerFusedLinearJSDFunction.apply(student, weight, teachers[0], weight.detach(), labels, _BETA[kind])

    return compute


def _chunked_jsd(compiled: bool) -> DivergenceFunction:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    def compute(student: Tensor, teachers: Tensor, weight: Tensor, kind: str) -> Tensor:
        loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta=_BETA[kind], compiled=compiled)
        labels = torch.zeros(student.shape[0], dtype=torch.int64, device=student.device)
        return loss(student, weight, teachers[0], weight.detach(), labels)

    return compute


_on_cuda: Callable[[torch.device], str | None] = needs_cuda(_PACKAGE)

ROW_LOGPROB = [
    RowLogprobPeer(
        "Liger fused_linear_cross_entropy",
        partial(_cross_entropy, "none"),
        _on_cuda,
        precision="bfloat16",
        note="recomputes in backward",
    ),
    RowLogprobPeer(
        "Liger fused_linear_cross_entropy, sum",
        partial(_cross_entropy, "sum"),
        _on_cuda,
        precision="bfloat16",
        question="sum",
        note="gradients in forward",
    ),
    RowLogprobPeer(
        "Liger fused_linear_scaled_cross_entropy",
        _scaled_cross_entropy,
        _why_no_scaled,
        precision="bfloat16",
        note="head gradient always; CuTe on sm_90, chunked torch elsewhere",
    ),
]

DIVERGENCE = [
    DivergencePeer("Liger fused_linear_jsd", _fused_jsd, _on_cuda, precision="bfloat16", note="gradients in forward"),
    DivergencePeer(
        "Liger chunked JSD",
        partial(_chunked_jsd, False),
        _why_no_chunked,
        precision="bfloat16",
        note="gradients in forward, head gradient always",
    ),
    DivergencePeer(
        "Liger chunked JSD, compiled",
        partial(_chunked_jsd, True),
        needs_cuda(_PACKAGE),
        precision="bfloat16",
        note="gradients in forward, head gradient always",
    ),
]
