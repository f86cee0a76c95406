"""The head's definition: what every other implementation is tested against.

Everything here materialises whole [tokens, vocab] tensors and lets autograd differentiate. Inputs below float32 are
computed in float32; float64 stays float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sgsd_kernels.head.products import accumulation_dtype


class LogprobOutput(NamedTuple):
    """What the head says of each row's target; natural logarithms, float32 (float64 for float64 inputs).

    Rows whose target is ``ignore_index`` are 0 in every field.
    """

    logprob: Tensor
    """[N]: log-probability of the target."""
    lse: Tensor
    """[N]: log-sum-exp of the final logits (after softcap and temperature)."""
    entropy: Tensor | None
    """[N]: entropy of the distribution, None unless asked for; never carries a gradient."""


def head_logits(
    hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
) -> Tensor:
    """The logits [N, V] of ``hidden`` [N, D] under the head ``weight`` [V, D].

    In this order: product, bias, ``softcap * tanh(logits / softcap)``, division by ``temperature``. Columns from
    ``vocab_limit`` on do not exist.
    """
    dtype = accumulation_dtype(hidden.dtype, weight.dtype)
    logits = hidden.to(dtype) @ weight[:vocab_limit].to(dtype).T
    if bias is not None:
        logits = logits + bias[:vocab_limit].to(dtype)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / temperature


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    entropy: bool = False,
    ignore_index: int = -100,
) -> LogprobOutput:
    """Log-probability of ``targets`` [N] under the head ``weight`` [V, D] at ``hidden`` [N, D].

    ``logprob`` and ``lse`` are differentiable in hidden, weight and bias; ``entropy`` is detached.
    """
    logits = head_logits(hidden, weight, bias=bias, temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    is_kept = targets != ignore_index
    lse = torch.logsumexp(logits, dim=-1)
    target_logit = logits.gather(-1, targets.where(is_kept, 0).unsqueeze(-1)).squeeze(-1)
    return LogprobOutput(
        logprob=torch.where(is_kept, target_logit - lse, 0.0),
        lse=torch.where(is_kept, lse, 0.0),
        entropy=torch.where(is_kept, entropy_of_logits(logits.detach()), 0.0) if entropy else None,
    )


def entropy_of_logits(logits: Tensor) -> Tensor:
    """Entropy [...] in nats of ``softmax(logits)``, ``logits`` [..., V]; entries of -inf add 0."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(-1)
