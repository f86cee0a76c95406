"""`support_logprob` as a function that autograd can differentiate, whatever products it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope, refuse_second_derivative
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.products import apply_options_, undo_options_
from sgsd_kernels.support.passes import SupportPairs, SupportProducts, masked_log_softmax


def support_logprob_by(
    products: SupportProducts,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    mask: Tensor,
    options: HeadOptions,
) -> Tensor:
    """As `sgsd_kernels.support_logprob`, which checks the tensors, by the given ``products``."""
    result: Tensor = _SupportLogprob.apply(hidden, weight, bias, ids, mask, _Plan(options, products))
    return result


@dataclass(frozen=True, slots=True)
class _Plan:
    options: HeadOptions
    products: SupportProducts


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
