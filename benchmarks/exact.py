"""Reference answers in float64 (float32 where that would take too long), in chunks of rows; nothing of sgsd_kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Inputs, row_chunks

FLOAT64_FLOPS = 5e14
"""A product above this many FLOPs is checked in float32 on CUDA instead."""
FLOAT64_FLOPS_CPU = 2e12

GATE_TEMPERATURE = 1.0
LOG_RATIO_CLIP = 3.0
STANCE_THRESHOLD = 0.05


def reference_dtype(flops: int, device: torch.device) -> torch.dtype:
    """The dtype of a reference that needs ``flops``."""
    limit = FLOAT64_FLOPS if device.type == "cuda" else FLOAT64_FLOPS_CPU
    return torch.float64 if flops <= limit else torch.float32


@torch.no_grad()
def row_logprob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """[N] log-probabilities of ``targets``, in the dtype of ``weight``."""
    result = torch.empty(hidden.shape[0], dtype=weight.dtype, device=weight.device)
    for rows in row_chunks(hidden.shape[0], weight.shape[0]):
        logits = hidden[rows].to(weight.dtype) @ weight.T
        result[rows] = logits.gather(-1, targets[rows, None]).squeeze(-1) - logits.logsumexp(-1)
    return result


@torch.no_grad()
def row_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients [N, D] and [V, D] of ``sum(upstream * row_logprob)``: dlogits = upstream (onehot - softmax)."""
    grad_hidden = torch.empty(hidden.shape, dtype=weight.dtype, device=weight.device)
    grad_weight = torch.zeros_like(weight) if needs_weight else None
    for rows in row_chunks(hidden.shape[0], weight.shape[0]):
        chunk = hidden[rows].to(weight.dtype)
        dlogits = (chunk @ weight.T).softmax(-1).neg_()
        dlogits.scatter_add_(-1, targets[rows, None], torch.ones_like(dlogits[:, :1]))
        dlogits *= upstream[rows, None].to(weight.dtype)
        grad_hidden[rows] = dlogits @ weight
        if grad_weight is not None:
            grad_weight.addmm_(dlogits.T, chunk)
    return grad_hidden, grad_weight


@dataclass(frozen=True, slots=True)
class GatedLoss:
    """SGSD's loss of packed rollouts, differentiable by autograd."""

    loss: Tensor
    """Scalar: the mean over rollouts."""
    stance_score: Tensor
    """[B, K] nats per token."""


def gated_loss(
    student_logprob: Tensor, teacher_logprob: Tensor, inputs: Inputs, gate_input: Tensor | None = None
) -> GatedLoss:
    """The definition of DESIGN.md section 2 in plain torch.

    Args:
        student_logprob: [T], or [K, T] where each teacher has its own. teacher_logprob: [K, T].
        inputs: The rollouts' offsets, weights and outcomes; every token counts.
        gate_input: [K, T] in the place of the log-ratio in the gate.
    """
    log_ratio = teacher_logprob - student_logprob
    gated = gate_input if gate_input is not None else log_ratio
    token_loss = -torch.log1p(torch.expm1(gated.square() / (-2 * GATE_TEMPERATURE)) / 2)
    lengths = inputs.rollout_offsets.diff()
    rollout = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    def rollout_mean(values: Tensor) -> Tensor:
        totals = values.new_zeros(len(lengths), values.shape[0]).index_add(0, rollout, values.T)
        return totals / lengths.clamp(min=1).unsqueeze(-1)

    stance_score = rollout_mean(log_ratio.detach().clamp(-LOG_RATIO_CLIP, LOG_RATIO_CLIP))
    stance = stance_score.sign() * (stance_score.abs() > STANCE_THRESHOLD)
    weights = inputs.context_weight.to(stance.dtype) * inputs.outcome.to(stance.dtype).unsqueeze(-1) * stance
    return GatedLoss((weights * rollout_mean(token_loss)).sum(-1).mean(), stance_score)


def divergence_entries(student_logits: Tensor, teacher_logprob: Tensor, kind: str, beta: float = 0.5) -> Tensor:
    """[N, V] entries of the divergence of `sgsd_kernels.linear_divergence`, from the teacher's log-probabilities."""
    student = student_logits.log_softmax(-1)
    if kind == "forward_kl":
        return teacher_logprob.exp() * (teacher_logprob - student)
    if kind == "reverse_kl":
        return student.exp() * (student - teacher_logprob)
    mixture = torch.logaddexp(teacher_logprob + math.log(beta), student + math.log1p(-beta))
    return beta * teacher_logprob.exp() * (teacher_logprob - mixture) + (1 - beta) * student.exp() * (student - mixture)


def mixture_logprob(hidden: Tensor, weight: Tensor) -> Tensor:
    """[N, V] log of the even mixture of the teachers ``hidden`` [K, N, D]."""
    logprobs = [(rows.to(weight.dtype) @ weight.T).log_softmax(-1) for rows in hidden]
    return torch.stack(logprobs).logsumexp(0) - math.log(len(logprobs))


def chunked_gradients(
    hidden: Tensor, weight: Tensor, loss_of_rows: Callable[[slice, Tensor, Tensor], Tensor], needs_weight: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum, gradient in ``hidden`` and in ``weight`` of ``loss_of_rows(rows, hidden[rows], weight)`` over all rows."""
    head = weight.detach().requires_grad_(needs_weight)
    total = weight.new_zeros(())
    grad_hidden = torch.empty(hidden.shape, dtype=weight.dtype, device=weight.device)
    grad_weight = torch.zeros_like(weight) if needs_weight else None
    for rows in row_chunks(hidden.shape[0], 4 * weight.shape[0]):
        chunk = hidden[rows].to(weight.dtype).requires_grad_()
        loss = loss_of_rows(rows, chunk, head)
        gradients = torch.autograd.grad(loss, [chunk, head] if needs_weight else [chunk])
        total += loss.detach()
        grad_hidden[rows] = gradients[0]
        if grad_weight is not None:
            grad_weight += gradients[1]
    return total, grad_hidden, grad_weight
