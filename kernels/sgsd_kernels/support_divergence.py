"""The divergence on the teacher's top-k tokens: both distributions restricted to them and renormalised.

Only the teacher's side reads the whole vocabulary; the student multiplies the k rows of the head that are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.divergence import Divergence
from sgsd_kernels.divergence_function import kept_rows
from sgsd_kernels.divergence_passes import TeacherHead, without_targets
from sgsd_kernels.head import HeadOptions
from sgsd_kernels.head_passes import HeadRows
from sgsd_kernels.reference_divergence import divergence_entries
from sgsd_kernels.support_logprob import support_logprob
from sgsd_kernels.top_k import ROW_CHUNK, VOCAB_CHUNK, masked_log_softmax, top_k_logits


def support_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher: TeacherHead,
    options: HeadOptions,
    divergence: Divergence,
    support_top_k: int,
    mask: Tensor | None,
    *,
    implementation: Implementation = "auto",
    row_chunk: int = ROW_CHUNK,
    vocab_chunk: int = VOCAB_CHUNK,
) -> Tensor:
    """Divergence [N] on the ``support_top_k`` tokens that the one teacher likes best; 0 outside ``mask``.

    Ties go to the lowest token id, and a token whose logit is -inf is not in the support. Workspace: as
    `sgsd_kernels.teacher_support` and `sgsd_kernels.support_logprob`, which also gives the gradient.
    """
    kept = kept_rows(mask, hidden)
    head = (weight, bias) if teacher.weight is None else (teacher.weight, teacher.bias)
    teacher_rows = HeadRows.select(teacher.hidden[0], *head, without_targets(hidden), options, kept)
    best = resolve_implementation(implementation, Workload.of("teacher_support", teacher_rows.hidden, head[0]))
    ids, logits, _ = top_k_logits(
        teacher_rows, support_top_k, implementation=best, row_chunk=row_chunk, vocab_chunk=vocab_chunk
    )
    is_used = logits > -torch.inf
    student = support_logprob(
        hidden[kept],
        weight,
        ids.unsqueeze(1),
        is_used.unsqueeze(1),
        bias=bias,
        temperature=options.temperature,
        softcap=options.softcap,
        vocab_limit=options.vocab_limit,
        implementation=implementation,
    ).squeeze(1)
    value = divergence_entries(student, masked_log_softmax(logits, is_used), divergence).sum(-1)
    return value.new_zeros(hidden.shape[0]).index_copy(0, kept, value)
