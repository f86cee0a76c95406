"""The definition of `sgsd_kernels.linear_divergence`: whole logits, autograd, nothing clever."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgsd_kernels.divergence.passes import TeacherHead
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.reference import head_logits


def linear_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher: TeacherHead,
    options: HeadOptions,
    divergence: Divergence,
    support_top_k: int = -1,
    support_tail: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Divergence [N] of the teachers' mixture p = sum_k w_k p_k and the student q, both softmaxes of final logits.

    With ``support_top_k`` > 0 both are restricted to the first teacher's top-k: renormalised, or with ``support_tail``
    beside the mass of all other tokens. Rows outside ``mask`` are 0.
    Differentiable in ``hidden``, ``weight`` (as the student's head) and ``bias``.
    """
    student = _logits(hidden, weight, bias, options)
    head = (weight, bias) if teacher.weight is None else (teacher.weight, teacher.bias)
    with torch.no_grad():
        teachers = torch.stack([_logits(rows, *head, options) for rows in teacher.hidden])
    outside = ~top_k_support(teachers[0], support_top_k) if support_top_k > 0 else None
    if outside is not None and not support_tail:
        student, teachers = student.masked_fill(outside, -torch.inf), teachers.masked_fill(outside, -torch.inf)
    logprobs = teachers.log_softmax(-1)
    if teacher.log_weight is not None:
        logprobs = logprobs + teacher.log_weight.unsqueeze(-1)
    mixture, student = logprobs.logsumexp(dim=0), student.log_softmax(-1)
    if outside is not None and support_tail:
        student, mixture = with_tail(student, outside), with_tail(mixture, outside)
    value = divergence_entries(student, mixture, divergence).sum(-1)
    return value if mask is None else torch.where(mask, value, 0.0)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, options: HeadOptions) -> Tensor:
    return head_logits(
        hidden,
        weight,
        bias=bias,
        temperature=options.temperature,
        softcap=options.softcap,
        vocab_limit=options.vocab_limit,
    )


def top_k_support(logits: Tensor, top_k: int) -> Tensor:
    """Whether a column is among the row's ``top_k`` largest; among equals the lowest column comes first."""
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order[..., :top_k], True)


def with_tail(logprob: Tensor, outside: Tensor) -> Tensor:
    """[N, V + 1]: the columns ``outside`` [N, V] moved into one last column."""
    is_empty = ~outside.any(dim=-1, keepdim=True)
    rest = logprob.masked_fill(~outside, -torch.inf).masked_fill(is_empty, 0.0)  # 0: a gradient of 0 and not of nan
    tail = rest.logsumexp(dim=-1, keepdim=True).masked_fill(is_empty, -torch.inf)
    return torch.cat([logprob.masked_fill(outside, -torch.inf), tail], dim=-1)


def divergence_entries(student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
    """The entries whose sum is the divergence, from log-probabilities of one shape; differentiable in ``student``."""
    if divergence.kind == "forward_kl":
        entries = _relative(teacher, student)
    elif divergence.kind == "reverse_kl":
        entries = _relative(student, teacher)
    else:
        beta = divergence.beta
        nowhere = (student == -torch.inf) & (teacher == -torch.inf)
        shares = [teacher + math.log(beta), student + math.log1p(-beta)]
        mixture = torch.logsumexp(torch.stack([share.masked_fill(nowhere, 0.0) for share in shares]), dim=0)
        entries = beta * _relative(teacher, mixture) + (1 - beta) * _relative(student, mixture)
    return entries if divergence.token_clip is None else entries.clamp(max=divergence.token_clip)


def _relative(left: Tensor, right: Tensor) -> Tensor:
    """``exp(left) * (left - right)``, 0 where left is -inf."""
    outside = left == -torch.inf
    return left.exp() * (left.masked_fill(outside, 0.0) - right.masked_fill(outside, 0.0))
