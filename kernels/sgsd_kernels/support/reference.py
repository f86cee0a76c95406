"""The definitions of the local support: whole logits, a stable sort, autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadRows
from sgsd_kernels.head.reference import head_logits
from sgsd_kernels.support.passes import TopK, masked_log_softmax


def top_k_logits(rows: HeadRows, top_k: int) -> TopK:
    """As `sgsd_kernels.support.top_k.top_k_logits`, by a stable sort of every row's whole logits."""
    options = rows.options
    logits = head_logits(
        rows.hidden,
        rows.weight,
        bias=rows.bias,
        temperature=options.temperature,
        softcap=options.softcap,
        vocab_limit=options.vocab_limit,
    )
    width = logits.shape[1]
    order = logits.float().sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    missing = (0, top_k - order.shape[1])
    is_inside = (rows.targets >= 0) & (rows.targets < width)
    found = logits.gather(-1, rows.targets.clamp(0, width - 1).unsqueeze(-1)).squeeze(-1)
    return TopK(
        ids=torch.nn.functional.pad(order, missing),
        logits=torch.nn.functional.pad(logits.gather(-1, order), missing, value=-torch.inf),
        target_logit=torch.where(is_inside, found, -torch.inf),
    )


def support_logprob(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, mask: Tensor, options: HeadOptions
) -> Tensor:
    """As `sgsd_kernels.support_logprob`, which checks the tensors, from whole logits."""
    logits = head_logits(
        hidden,
        weight,
        bias=bias,
        temperature=options.temperature,
        softcap=options.softcap,
        vocab_limit=options.vocab_limit,
    )
    return masked_log_softmax(logits.gather(-1, ids.flatten(1)).view(ids.shape), mask)
