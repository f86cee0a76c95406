"""The public head: hidden states to log-probabilities, by whichever implementation is chosen."""

from __future__ import annotations

from torch import Tensor

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.head import reference
from sgsd_kernels.head.function import linear_logprob_by
from sgsd_kernels.head.implementations import passes_for
from sgsd_kernels.head.options import HeadOptions, check_head, check_targets
from sgsd_kernels.head.reference import LogprobOutput


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
    by the temperature, in this order. Autocast is off inside. Rows of student and teachers that share the head belong
    in one call; only rows with an upstream gradient cost anything in backward.

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
        ValueError: shapes or dtypes that do not fit, options out of range, an unknown implementation or one that
            cannot run here, a target out of range (checked on the CPU only; elsewhere its logit counts as -inf).
        TypeError: a DTensor.
    """
    check_head(hidden, weight, bias)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    check_targets(targets, hidden.shape[0], options.vocab_size(weight), ignore_index)
    chosen = resolve_implementation(implementation, Workload.of("linear_logprob", hidden, weight))
    if chosen != "reference":
        return linear_logprob_by(
            passes_for(chosen, hidden.device),
            hidden,
            weight,
            targets,
            bias=bias,
            options=options,
            entropy=entropy,
            ignore_index=ignore_index,
        )
    with kernel_scope(hidden.device):
        return reference.linear_logprob(
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
