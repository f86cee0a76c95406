"""The public head: hidden states to log-probabilities, by whichever implementation is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from sgsd_kernels import chunked, reference
from sgsd_kernels.autograd import without_autocast
from sgsd_kernels.head import HeadOptions, check_head, check_targets
from sgsd_kernels.reference import LogprobOutput

Implementation = Literal["auto", "reference", "chunked"]
"""``auto``: the best one for the device. ``reference``: builds [N, V], for tests. ``chunked``: any device."""

IMPLEMENTATION_VARIABLE = "SGSD_KERNELS_IMPLEMENTATION"

_IMPLEMENTATIONS: dict[str, Callable[..., LogprobOutput]] = {
    "reference": reference.linear_logprob,
    "chunked": chunked.linear_logprob,
}


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
    implementation: Implementation = "auto",
) -> LogprobOutput:
    """Log-probability of each row's target under ``softmax(hidden @ weight.T)``, without keeping the logits.

    Logits come from float32 accumulators of the product (never rounded to a half dtype), then bias, softcap, division
    by the temperature, in this order. Autocast is off inside.

    Args:
        hidden: [N, D], any floating dtype.
        weight: [V, D], a plain tensor; on CUDA the fast product needs the dtype of hidden. Frozen, it costs no
            gradient and no buffer for one.
        targets: [N] int64 token ids; ``ignore_index`` rows are 0 in every output and get no gradient.
        bias: [V]; -inf entries remove their column.
        temperature: above 0.
        softcap: ``softcap * tanh(logits / softcap)``; None is off.
        vocab_limit: columns from here on do not exist (padded heads).
        entropy: also return the entropy of every row. It carries no gradient.
        ignore_index: the target that marks a row without one.
        implementation: see `Implementation`. The environment variable ``SGSD_KERNELS_IMPLEMENTATION`` decides where
            this is ``auto``.

    Returns:
        ``LogprobOutput(logprob, lse, entropy)``, each [N] in nats, float32 (float64 for float64 inputs). ``logprob``
        and ``lse`` are differentiable once, in hidden, weight and bias.

    Raises:
        ValueError: shapes or dtypes that do not fit, options out of range, an unknown implementation, a target out of
            range (checked on the CPU only; elsewhere such a row's result is undefined).
        TypeError: a DTensor.
    """
    function = _IMPLEMENTATIONS[resolve_implementation(implementation)]
    check_head(hidden, weight, bias)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    check_targets(targets, hidden.shape[0], options.vocab_size(weight), ignore_index)
    with without_autocast(hidden.device):
        return function(
            hidden,
            weight,
            targets,
            bias=bias,
            temperature=temperature,
            softcap=softcap,
            vocab_limit=vocab_limit,
            entropy=entropy,
            ignore_index=ignore_index,
        )


def resolve_implementation(implementation: str = "auto") -> str:
    """The name of the implementation that a call would use: the argument, else the environment, else the best one.

    Raises:
        ValueError: a name that does not exist.
    """
    source = "implementation"
    if implementation == "auto":
        source = f"the environment variable {IMPLEMENTATION_VARIABLE}"
        implementation = os.environ.get(IMPLEMENTATION_VARIABLE) or "auto"
    if implementation not in get_args(Implementation):
        raise ValueError(f"{source} must be one of {', '.join(get_args(Implementation))}; got {implementation!r}")
    return "chunked" if implementation == "auto" else implementation
