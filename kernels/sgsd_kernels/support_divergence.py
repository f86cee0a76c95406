"""The divergence on the teacher's top-k tokens: both distributions restricted to them and renormalised.

Only the teacher's side reads the whole vocabulary; the student multiplies the k rows of the head that are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.autograd import without_autocast
from sgsd_kernels.chunked import VOCAB_CHUNK, chunk_logits
from sgsd_kernels.divergence import Divergence
from sgsd_kernels.divergence_function import kept_rows
from sgsd_kernels.divergence_passes import TeacherHead, without_targets
from sgsd_kernels.head import HeadOptions, spans
from sgsd_kernels.head_passes import HeadRows
from sgsd_kernels.local_support import masked_log_softmax, ranking_keys
from sgsd_kernels.reference_divergence import divergence_entries
from sgsd_kernels.support_logprob import support_logprob

ROW_CHUNK = 1024


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
    ids, logits = top_k_logits(teacher_rows, support_top_k, row_chunk=row_chunk, vocab_chunk=vocab_chunk)
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
    ).squeeze(1)
    value = divergence_entries(student, masked_log_softmax(logits, is_used), divergence).sum(-1)
    return value.new_zeros(hidden.shape[0]).index_copy(0, kept, value)


@torch.no_grad()
def top_k_logits(rows: HeadRows, top_k: int, *, row_chunk: int, vocab_chunk: int) -> tuple[Tensor, Tensor]:
    """Ids (int64) and final logits [R, k] of each row's largest, in falling order; -inf in slots without a token."""
    shape, device = (rows.num_rows, top_k), rows.hidden.device
    keys = torch.full(shape, torch.iinfo(torch.int64).min, device=device)
    ids = torch.zeros(shape, dtype=torch.int64, device=device)
    logits = torch.full(shape, -torch.inf, dtype=rows.dtype, device=device)
    with without_autocast(device):
        for span in rows.vocabulary(vocab_chunk):
            columns = torch.arange(span.columns.start, span.columns.stop, device=device)
            for block in spans(rows.num_rows, row_chunk):
                chunk = chunk_logits(rows.block(block), span)
                best, local = ranking_keys(chunk, columns).topk(min(top_k, chunk.shape[1]), dim=-1)
                keys[block], order = torch.cat([keys[block], best], dim=-1).topk(top_k, dim=-1)
                ids[block] = torch.cat([ids[block], columns[local]], dim=-1).gather(-1, order)
                logits[block] = torch.cat([logits[block], chunk.gather(-1, local)], dim=-1).gather(-1, order)
    return ids, logits
