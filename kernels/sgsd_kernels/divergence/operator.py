"""The public divergence: hidden states of student and teachers to a divergence per token, never whole logits."""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.divergence import reference
from sgsd_kernels.divergence.chunked import ChunkedDivergence
from sgsd_kernels.divergence.function import linear_divergence_by
from sgsd_kernels.divergence.on_support import support_divergence
from sgsd_kernels.divergence.passes import TeacherHead
from sgsd_kernels.divergence.rule import Divergence, DivergenceKind
from sgsd_kernels.head.options import HeadOptions, check_head
from sgsd_kernels.head.products import accumulation_dtype


def linear_divergence(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_weight: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    mixture_weights: Tensor | None = None,
    kind: DivergenceKind = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    token_clip: float | None = None,
    support_top_k: int = -1,
    support_tail: bool = False,
    mask: Tensor | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Divergence per row of a teacher p, or of a mixture of K teachers, and the student q, over the whole vocabulary.

    ``q = softmax(student_hidden @ weight.T)`` and ``p = sum_k w_k softmax(teacher_hidden[k] @ teacher_weight.T)``, each
    after bias, softcap and temperature. With the entries summed over the vocabulary::

        forward_kl   p (log p - log q)
        reverse_kl   q (log q - log p)
        jsd          beta p (log p - log m) + (1 - beta) q (log q - log m),   m = beta p + (1 - beta) q

    This is ``generalized_jsd_loss`` of OPSD (arXiv 2601.18734) per token; its beta 0 and 1 are the first two kinds.
    Nothing is scaled by the temperature. Log-sum-exps come first and entries second, so that neither logits far from 0
    nor a small divergence costs digits. Autocast is off inside.

    Args:
        student_hidden: [N, D], any floating dtype.
        teacher_hidden: [N, D'] or [K, N, D'], D' = D unless ``teacher_weight`` is given. Never gets a gradient.
        weight: [V, D], a plain tensor. Frozen, it costs no gradient and no buffer for one.
        bias: [V]; -inf entries remove their column.
        teacher_weight: [V, D'], the teachers' own head; None is the student's with its bias.
        teacher_bias: [V], with ``teacher_weight`` alone.
        mixture_weights: [K] or [N, K], at least 0, summing to 1 over K; None is uniform. Gets no gradient.
        kind: see `DivergenceKind`.
        beta: the teacher's share of m, strictly between 0 and 1; of ``jsd`` alone.
        temperature: above 0, of both sides.
        softcap: ``softcap * tanh(logits / softcap)``, of both sides; None is off.
        vocab_limit: columns from here on do not exist (padded heads, of both sides).
        token_clip: the most that one entry may add; entries above have no gradient. None is off.
        support_top_k: k > 0 restricts both sides to the k tokens that the one teacher likes best and renormalises;
            -1 is off.
        support_tail: with ``support_top_k``, do not renormalise: the k probabilities stay, and the mass of all other
            tokens is one more entry. Never above the divergence over the whole vocabulary, and closer to it with every
            k; but no cheaper, since the mass of the rest takes a log-sum-exp over the vocabulary. In float32 that mass
            carries a logit's rounding, up to 1e-5 where logits reach 50, and is at least 1e-6 (``reference``: exact).
        mask: [N] bool; other rows are 0 and cost nothing. None keeps all.
        implementation: see `Implementation`. With a support it says how that is ranked and multiplied, as in
            `sgsd_kernels.teacher_support` and `sgsd_kernels.support_logprob`.

    Returns:
        [N] nats, float32 (float64 for float64 inputs); differentiable once in student_hidden, weight (as the student's
        head alone) and bias. Infinite where a KL meets a token that only the distribution it weighs with can produce.

    Raises:
        ValueError: shapes or dtypes that do not fit, options out of range, mixture weights that are not weights
            (checked on the CPU only), an unknown implementation.
        TypeError: a DTensor.
    """
    divergence = Divergence(kind=kind, beta=beta, token_clip=token_clip)
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    _check_student(student_hidden, weight, bias, mask)
    _check_teachers(student_hidden, teacher_hidden, weight, teacher_weight, teacher_bias, options)
    num_teachers = 1 if teacher_hidden.dim() == 2 else teacher_hidden.shape[0]
    _check_mixture(mixture_weights, num_teachers, student_hidden.shape[0])
    _check_support(support_top_k, support_tail, num_teachers)
    factors = [tensor for tensor in (student_hidden, weight, teacher_hidden, teacher_weight) if tensor is not None]
    name = resolve_implementation(implementation, Workload.of("linear_divergence", *factors))
    teacher = TeacherHead.of(teacher_hidden, teacher_weight, teacher_bias, mixture_weights)
    arguments = (student_hidden, weight, bias, teacher, options, divergence)
    with kernel_scope(student_hidden.device):
        if name == "reference":
            return reference.linear_divergence(*arguments, support_top_k, support_tail, mask)
        if support_top_k > 0:
            return support_divergence(*arguments, support_top_k, support_tail, mask, implementation=implementation)
        if name == "cublas":
            from sgsd_kernels.divergence import cublas

            return cublas.linear_divergence(*arguments, mask)
        if name == "triton":
            from sgsd_kernels.divergence.triton import TritonDivergence

            return linear_divergence_by(TritonDivergence.for_device(student_hidden.device), *arguments, mask)
        return linear_divergence_by(ChunkedDivergence(), *arguments, mask)


def _check_student(hidden: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> None:
    check_head(hidden, weight, bias)
    if mask is not None and (mask.shape != hidden.shape[:1] or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be [N] bool with student_hidden's N = {hidden.shape[0]}; got {list(mask.shape)} {mask.dtype}"
        )


def _check_teachers(
    hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    teacher_weight: Tensor | None,
    teacher_bias: Tensor | None,
    options: HeadOptions,
) -> None:
    num_rows = hidden.shape[0]
    num_teachers = teacher_hidden.shape[0] if teacher_hidden.dim() == 3 else 1
    if teacher_hidden.dim() not in (2, 3) or teacher_hidden.shape[-2] != num_rows or num_teachers < 1:
        raise ValueError(
            f"teacher_hidden must be [N, D] or [K, N, D] with student_hidden's N = {num_rows} and K at least 1; "
            f"got {list(teacher_hidden.shape)}"
        )
    if teacher_weight is None and teacher_bias is not None:
        raise ValueError("teacher_bias must come with teacher_weight; without it teachers use the student's head")
    head = weight if teacher_weight is None else teacher_weight
    try:
        check_head(teacher_hidden.flatten(0, -2), head, teacher_bias)
    except (TypeError, ValueError) as error:
        raise type(error)(f"of the teachers: {error}") from None
    if options.vocab_size(head) != options.vocab_size(weight):
        raise ValueError(
            "teacher_weight must have the vocabulary of weight, or vocab_limit cut both to one; "
            f"got {head.shape[0]} and {weight.shape[0]} columns with vocab_limit={options.vocab_limit}"
        )
    dtypes = [accumulation_dtype(hidden.dtype, weight.dtype), accumulation_dtype(teacher_hidden.dtype, head.dtype)]
    if dtypes[0] != dtypes[1]:
        raise ValueError(
            f"student and teachers must both be float64 or neither; got {hidden.dtype} and {teacher_hidden.dtype} "
            f"under heads of {weight.dtype} and {head.dtype}"
        )


def _check_mixture(mixture_weights: Tensor | None, num_teachers: int, num_rows: int) -> None:
    if mixture_weights is None:
        return
    if mixture_weights.shape not in ((num_teachers,), (num_rows, num_teachers)):
        raise ValueError(
            f"mixture_weights must be [K] or [N, K] with K = {num_teachers} teachers and N = {num_rows}; "
            f"got {list(mixture_weights.shape)}"
        )
    if mixture_weights.device.type != "cpu":
        return
    sums = mixture_weights.detach().double().sum(-1)
    if (mixture_weights < 0).any() or ((sums - 1).abs() > 1e-2).any():
        raise ValueError(
            "mixture_weights must be at least 0 and sum to 1 over the teachers; got a least weight of "
            f"{mixture_weights.min().item():.4g} and sums from {sums.min().item():.4g} to {sums.max().item():.4g}"
        )


def _check_support(support_top_k: int, support_tail: bool, num_teachers: int) -> None:
    if support_top_k != -1 and support_top_k < 1:
        raise ValueError(f"support_top_k must be at least 1, or -1 to switch it off; got {support_top_k}")
    if support_tail and support_top_k == -1:
        raise ValueError("support_tail must come with support_top_k; without it there is no rest to count as one entry")
    if support_top_k > 0 and num_teachers > 1:
        raise ValueError(
            f"support_top_k must be -1 for a mixture of teachers, which has no one top-k; got {support_top_k} "
            f"with {num_teachers} teachers"
        )
