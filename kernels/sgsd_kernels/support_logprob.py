"""The student on a local support: a product with the few head rows that each token's support names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope, refuse_second_derivative
from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.head import HeadOptions, apply_options_, check_head, undo_options_
from sgsd_kernels.reference import head_logits
from sgsd_kernels.support_products import GATHER_LIMIT, GatheredProducts, SupportPairs, SupportProducts
from sgsd_kernels.top_k import masked_log_softmax


def support_logprob(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    mask: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    gather_limit: int = GATHER_LIMIT,
    implementation: Implementation = "auto",
) -> Tensor:
    """Log-probabilities of the tokens ``ids`` at each row, renormalised on the entries in ``mask``.

    Each (row, support) pair multiplies its S rows of the head and no other. Pairs without an upstream gradient are
    skipped in backward.

    Args:
        hidden: [N, D]. weight: [V, D]; frozen, it costs no gradient and no buffer for one.
        ids: [N, K, S] int64 token ids. mask: [N, K, S] bool, slots in use (ids elsewhere are not read).
        bias, temperature, softcap, vocab_limit: as in `sgsd_kernels.linear_logprob`.
        gather_limit: entries of the head that ``chunked`` and ``cublas`` gather at a time; ``triton`` gathers none.
        implementation: see `Implementation`. ``cublas`` is ``chunked``: there is no large product to hand over.

    Returns:
        [N, K, S] float32 nats (float64 for float64 inputs), -inf outside ``mask``; differentiable once in hidden,
        weight and bias.

    Raises:
        ValueError: shapes that do not fit, options out of range, an implementation that cannot run here, an id outside
            the vocabulary (checked on the CPU).
        TypeError: a DTensor.
    """
    check_head(hidden, weight, bias)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    if ids.dim() != 3 or ids.shape[0] != hidden.shape[0] or mask.shape != ids.shape:
        raise ValueError(
            f"ids and mask must be [N, K, S] with hidden's N = {hidden.shape[0]}; "
            f"got {list(ids.shape)} and {list(mask.shape)}"
        )
    ids = ids.where(mask, 0)
    vocab_size = options.vocab_size(weight)
    if ids.device.type == "cpu" and ((ids < 0) | (ids >= vocab_size)).any():
        raise ValueError(f"ids must be token ids in [0, {vocab_size}); got {ids.min().item()} to {ids.max().item()}")
    chosen = resolve_implementation(implementation, Workload.of("support_logprob", hidden, weight))
    if chosen == "reference":
        with kernel_scope(hidden.device):
            return _reference(hidden, weight, bias, ids, mask, options)
    plan = _Plan(options, _products(chosen, gather_limit))
    result: Tensor = _SupportLogprob.apply(hidden, weight, bias, ids, mask, plan)
    return result


@dataclass(frozen=True, slots=True)
class _Plan:
    options: HeadOptions
    products: SupportProducts


def _products(implementation: str, gather_limit: int) -> SupportProducts:
    if implementation != "triton":
        return GatheredProducts(gather_limit)
    from sgsd_kernels.triton_kernels.support import TritonSupportProducts

    return TritonSupportProducts()


def _reference(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, mask: Tensor, options: HeadOptions
) -> Tensor:
    """Whole logits and autograd."""
    logits = head_logits(
        hidden,
        weight,
        bias=bias,
        temperature=options.temperature,
        softcap=options.softcap,
        vocab_limit=options.vocab_limit,
    )
    return masked_log_softmax(logits.gather(-1, ids.flatten(1)).view(ids.shape), mask)


class _SupportLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, mask: Tensor, plan: _Plan
    ) -> Tensor:
        pairs = _pairs(ids)
        with kernel_scope(hidden.device):
            logits = plan.products.logits(hidden, weight, pairs)
            if bias is not None:
                logits = logits + bias[pairs.ids].to(logits.dtype)
            logits = apply_options_(logits, plan.options)
        logprob = masked_log_softmax(logits, mask.flatten(0, 1)).reshape(ids.shape)
        ctx.save_for_backward(hidden, weight, bias, ids, mask, logprob, logits)
        ctx.plan = plan
        return logprob

    @staticmethod
    def backward(ctx: Any, grad_logprob: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("support_logprob")
        hidden, weight, bias, ids, mask, logprob, logits = ctx.saved_tensors
        products = ctx.plan.products
        upstream = torch.where(mask, grad_logprob, 0.0).flatten(0, 1)
        live = (upstream != 0).any(dim=-1).nonzero().squeeze(-1)
        pairs, upstream = _pairs(ids).select(live), upstream[live]
        probability = logprob.flatten(0, 1)[live].exp()
        gradient = upstream - probability * upstream.sum(-1, keepdim=True)  # [pairs, S]
        grad_hidden, grad_weight, grad_bias = None, None, None
        with kernel_scope(hidden.device):
            gradient = undo_options_(gradient, logits[live], ctx.plan.options)
            if ctx.needs_input_grad[0]:
                grad_hidden = products.hidden_gradient(gradient, hidden, weight, pairs).to(hidden.dtype)
            if ctx.needs_input_grad[1]:
                grad_weight = products.weight_gradient(gradient, hidden, weight, pairs).to(weight.dtype)
            if bias is not None and ctx.needs_input_grad[2]:
                sums = torch.zeros(bias.shape, dtype=gradient.dtype, device=bias.device)
                grad_bias = sums.index_put_((pairs.ids,), gradient, accumulate=True).to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _pairs(ids: Tensor) -> SupportPairs:
    num_rows, num_contexts, _ = ids.shape
    rows = torch.arange(num_rows * num_contexts, device=ids.device) // max(1, num_contexts)
    return SupportPairs(rows, ids.flatten(0, 1))
