"""The divergence on the teacher's top-k tokens: renormalised on them, or with a bucket for all other tokens.

Renormalised, only the teacher's side reads the whole vocabulary; the student multiplies the k rows of the head that are
needed. The bucket needs the mass of the rest, so with it both sides read the whole vocabulary, and the student's
backward pass costs that of a log-probability.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.divergence.function import kept_rows
from sgsd_kernels.divergence.passes import TeacherHead, without_targets
from sgsd_kernels.divergence.reference import divergence_entries
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.operator import linear_logprob
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import HeadRows
from sgsd_kernels.support.operator import support_logprob
from sgsd_kernels.support.passes import masked_log_softmax
from sgsd_kernels.support.top_k import ROW_CHUNK, VOCAB_CHUNK, top_k_logits

TAIL_FLOOR_ULPS = 8
"""The least mass outside the support, in units of the last place of 1: about 1e-6 in float32."""


def support_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher: TeacherHead,
    options: HeadOptions,
    divergence: Divergence,
    support_top_k: int,
    support_tail: bool,
    mask: Tensor | None,
    *,
    implementation: Implementation = "auto",
    row_chunk: int = ROW_CHUNK,
    vocab_chunk: int = VOCAB_CHUNK,
) -> Tensor:
    """Divergence [N] on the ``support_top_k`` tokens that the one teacher likes best; 0 outside ``mask``.

    Ties go to the lowest token id, and a token whose logit is -inf is not in the support. Workspace: as
    `sgsd_kernels.teacher_support` and `sgsd_kernels.support_logprob`, which also gives the gradient; with
    ``support_tail`` as `sgsd_kernels.linear_logprob` too.
    """
    kept = kept_rows(mask, hidden)
    hidden_rows = hidden[kept]
    head = (weight, bias) if teacher.weight is None else (teacher.weight, teacher.bias)
    teacher_rows = HeadRows.select(teacher.hidden[0], *head, without_targets(hidden), options, kept)
    best = resolve_implementation(implementation, Workload.of("teacher_support", teacher_rows.hidden, head[0]))
    ids, logits, _ = top_k_logits(
        teacher_rows, support_top_k, implementation=best, row_chunk=row_chunk, vocab_chunk=vocab_chunk
    )
    is_used = logits > -torch.inf
    teacher_logprob = masked_log_softmax(logits, is_used)
    student_logprob = support_logprob(
        hidden_rows,
        weight,
        ids.unsqueeze(1),
        is_used.unsqueeze(1),
        bias=bias,
        implementation=implementation,
        **asdict(options),
    ).squeeze(1)
    if support_tail:
        with torch.no_grad():
            teacher_logprob = _with_tail(teacher_logprob, ids, teacher_rows.hidden, *head, options, implementation)
        student_logprob = _with_tail(student_logprob, ids, hidden_rows, weight, bias, options, implementation)
    value = divergence_entries(student_logprob, teacher_logprob, divergence).sum(-1)
    return value.new_zeros(hidden.shape[0]).index_copy(0, kept, value)


def _with_tail(
    local: Tensor,
    ids: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    options: HeadOptions,
    implementation: Implementation,
) -> Tensor:
    """[R, k + 1] among the whole vocabulary from ``local`` [R, k] on the support, the last being all other tokens.

    One token's log-probability among all, less the same on the support, is the log of the support's mass; the likeliest
    token has the most digits. That mass is at most 1 - floor, since rounding may leave a bucket of nothing, whose
    log-ratio is infinite. At the floor the entries still add up to 1, and the gradient is the renormalised one.
    """
    likeliest = local.detach().argmax(-1, keepdim=True)
    among_all = linear_logprob(
        hidden,
        weight,
        ids.gather(-1, likeliest).squeeze(-1),
        bias=bias,
        implementation=implementation,
        **asdict(options),
    ).logprob
    log_mass = among_all.unsqueeze(-1) - local.gather(-1, likeliest)
    log_mass = log_mass.clamp(max=-TAIL_FLOOR_ULPS * torch.finfo(local.dtype).eps)
    return torch.cat([local + log_mass, (-log_mass.expm1()).log()], dim=-1)
