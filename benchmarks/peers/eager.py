"""Whole logits in plain torch: rounded as most trainers round them, upcast, and the same under torch.compile."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.exact import divergence_entries
from benchmarks.peers.contracts import DivergenceFunction, DivergencePeer, LogprobFunction, RowLogprobPeer


def rounded_logprob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Logits and log-softmax in the dtype of the inputs, as the authors of SGSD have it."""
    logprob = (hidden @ weight.T).log_softmax(-1)
    return logprob.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def upcast_logprob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Logits rounded to the dtype of the inputs, log-softmax in float32, as TRL, verl's torch path and unsloth do."""
    logprob = (hidden @ weight.T).float().log_softmax(-1)
    return logprob.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def float32_logprob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Both factors upcast to float32 before the product."""
    logprob = (hidden.float() @ weight.float().T).log_softmax(-1)
    return logprob.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def divergence(student: Tensor, teachers: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Logits rounded to the dtype of the inputs, everything after in float32."""
    with torch.no_grad():
        logprobs = [(rows @ weight.T).float().log_softmax(-1) for rows in teachers]
        teacher = logprobs[0] if len(logprobs) == 1 else torch.stack(logprobs).logsumexp(0) - math.log(len(logprobs))
    return divergence_entries((student @ weight.T).float(), teacher, kind).sum(-1).mean()


def _as_is(function: Callable[..., Tensor]) -> Callable[[], Callable[..., Tensor]]:
    return lambda: function


def compiled_logprob() -> LogprobFunction:
    """`upcast_logprob` under torch.compile, for one shape."""
    return torch.compile(upcast_logprob, dynamic=False)


def compiled_divergence() -> DivergenceFunction:
    """`divergence` under torch.compile, for one shape."""
    return torch.compile(divergence, dynamic=False)


def why_not_compiled(device: torch.device) -> str | None:
    """torch.compile is left out where compiling takes longer than all the rest."""
    return None if device.type == "cuda" else "compiled for CUDA only: on a CPU compiling outlasts the small run"


_ROUNDED = "logits are rounded"

ROW_LOGPROB = [
    RowLogprobPeer("eager, all rounded", _as_is(rounded_logprob), precision="bfloat16", note=_ROUNDED),
    RowLogprobPeer("eager, float32 softmax", _as_is(upcast_logprob), precision="bfloat16", note=_ROUNDED),
    RowLogprobPeer("eager, float32 product", _as_is(float32_logprob)),
    RowLogprobPeer("torch.compile", compiled_logprob, why_not_compiled, precision="bfloat16", note=_ROUNDED),
]

DIVERGENCE = [
    DivergencePeer(
        "eager, float32 softmax", _as_is(divergence), precision="bfloat16", has_mixtures=True, note=_ROUNDED
    ),
    DivergencePeer(
        "torch.compile",
        compiled_divergence,
        why_not_compiled,
        precision="bfloat16",
        has_mixtures=True,
        note=_ROUNDED,
    ),
]
