"""SGSD's head loss end to end: hidden states of a student and K teachers in, one loss per rollout out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgsd_kernels.autograd import kernel_scope, refuse_second_derivative
from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.gate.operator import ragged_gated_polarity
from sgsd_kernels.gate.packed import RaggedLayout, check_ragged
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings, PolarityRule
from sgsd_kernels.head import reference
from sgsd_kernels.head.function import row_gradients
from sgsd_kernels.head.implementations import passes_for
from sgsd_kernels.head.options import HeadOptions, check_head, check_targets
from sgsd_kernels.head.passes import HeadPasses, HeadRows, Normalizer, RowStatistics, Upstream
from sgsd_kernels.head.products import spans


class GatedHeadOutput(NamedTuple):
    """The loss and the log-probabilities that it was made of; rows that do not count are 0."""

    gate: GatedPolarityOutput
    """``gate.rollout_loss`` [B] is differentiable in the student's hidden states, weight and bias."""
    student_logprob: Tensor
    """[M] nats, no gradient."""
    teacher_logprob: Tensor
    """[K, M] nats."""
    student_entropy: Tensor | None
    """[M] nats, None unless asked for."""
    teacher_entropy: Tensor | None
    """[K, M] nats, None unless asked for."""


def gated_polarity_head_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    loss_mask: Tensor,
    rollout_offsets: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    vocab_limit: int | None = None,
    entropy: bool = False,
    gate_temperature: float = 1.0,
    log_ratio_clip: float = 3.0,
    stance_threshold: float = 0.05,
    polarity: PolarityRule = "validated",
    implementation: Implementation = "auto",
) -> GatedHeadOutput:
    """The gated objective of arXiv 2605.28791 from hidden states, with one pass of the head forward and one backward.

    Student and teacher rows go through the head together. Rows outside ``loss_mask`` and teachers of weight 0 never
    reach it. Backward takes the student's rows with c_t != 0 alone: a rollout whose polarities are all neutral costs
    nothing there.

    For trainers that have the states of all K teachers at once. The one of this repository scores teacher by teacher
    (`sgsd_kernels.linear_logprob`, then `sgsd_kernels.gated_polarity`), so that its memory does not grow with K.

    Args:
        student_hidden: [M, D], the states that predict the tokens of all rollouts, one rollout behind the other.
        teacher_hidden: [K, M, D], the same tokens under each teacher context; no gradient flows to it.
        weight: [V, D], the head that both share. Frozen, it costs no gradient and no buffer for one.
        targets: [M] int64 sampled tokens.
        loss_mask: [M] bool, tokens that count.
        rollout_offsets: [B + 1] int64: rollout b is ``rollout_offsets[b] : rollout_offsets[b + 1]``.
        context_weight: [B, K]; 0 marks a context that is not there.
        outcome: [B], +1 accepted, -1 rejected, 0 no judgement.
        bias, temperature, softcap, vocab_limit: as in `sgsd_kernels.linear_logprob`.
        entropy: also return entropies.
        gate_temperature, log_ratio_clip, stance_threshold, polarity: as in `sgsd_kernels.gated_polarity`.
        implementation: of the head and of the gate, see `Implementation`.

    Raises:
        ValueError: shapes or dtypes that do not fit, a setting out of range, an implementation that cannot run here, a
            target that counts and is out of range (checked on the CPU).
        TypeError: a DTensor.
    """
    check_head(student_hidden, weight, bias)
    check_ragged(student_hidden, teacher_hidden, loss_mask, rollout_offsets, context_weight, outcome)
    if teacher_hidden.dim() != 3 or teacher_hidden.shape[2] != student_hidden.shape[1]:
        raise ValueError(
            f"teacher_hidden must be [K, M, D] with student_hidden's D = {student_hidden.shape[1]}; "
            f"got {list(teacher_hidden.shape)}"
        )
    if teacher_hidden.dtype != student_hidden.dtype:
        raise ValueError(
            f"teacher_hidden must have student_hidden's dtype {student_hidden.dtype}, as they go through the head "
            f"together; got {teacher_hidden.dtype}"
        )
    options = HeadOptions(temperature=temperature, softcap=softcap, vocab_limit=vocab_limit)
    check_targets(targets.where(loss_mask, _IGNORED), len(loss_mask), options.vocab_size(weight), _IGNORED)
    settings = GateSettings(
        gate_temperature=gate_temperature,
        log_ratio_clip=log_ratio_clip,
        stance_threshold=stance_threshold,
        polarity=polarity,
    )
    chosen = resolve_implementation(
        implementation, Workload.of("linear_logprob", student_hidden, teacher_hidden, weight)
    )
    batch = _Batch(targets, loss_mask.bool(), rollout_offsets, context_weight, outcome)
    if chosen == "reference":
        return _reference(student_hidden, teacher_hidden, weight, bias, batch, options, entropy, settings)
    plan = _Plan(passes_for(chosen, weight.device), options, settings, chosen, entropy)
    rollout_loss, output = _HeadLoss.apply(student_hidden, weight, bias, teacher_hidden.detach(), batch, plan)
    return output._replace(gate=output.gate.with_loss(rollout_loss))


_IGNORED = -100
SCAN_ROWS = 32768
"""Rows of student and teachers that are copied and go through the head at a time: 128 MiB of 2048 bfloat16 each."""


@dataclass(frozen=True, slots=True)
class _Batch:
    targets: Tensor
    loss_mask: Tensor
    rollout_offsets: Tensor
    context_weight: Tensor
    outcome: Tensor

    def counts(self) -> Tensor:
        """[1 + K, M] bool: the rows that need the head, the student's first."""
        layout = RaggedLayout(self.rollout_offsets, len(self.loss_mask))
        is_present = (self.context_weight != 0).T[:, layout.rollout]  # [K, M]
        return torch.cat([self.loss_mask.unsqueeze(0), self.loss_mask & is_present])

    def judge(
        self, student_logprob: Tensor, teacher_logprob: Tensor, settings: GateSettings, implementation: str
    ) -> GatedPolarityOutput:
        return ragged_gated_polarity(
            student_logprob,
            teacher_logprob,
            self.loss_mask,
            self.rollout_offsets,
            self.context_weight,
            self.outcome,
            gate_temperature=settings.gate_temperature,
            log_ratio_clip=settings.log_ratio_clip,
            stance_threshold=settings.stance_threshold,
            polarity=settings.polarity,
            implementation=implementation,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    passes: HeadPasses
    options: HeadOptions
    settings: GateSettings
    implementation: str
    entropy: bool


class _HeadLoss(torch.autograd.Function):
    """The loss per rollout; its gradient is that of a cross entropy with token weights c_t."""

    @staticmethod
    def forward(
        ctx: Any,
        student_hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_hidden: Tensor,
        batch: _Batch,
        plan: _Plan,
    ) -> tuple[Tensor, GatedHeadOutput]:
        counts = batch.counts()
        place = counts.flatten().nonzero().squeeze(-1)
        blocks = list(spans(len(place), SCAN_ROWS)) or [slice(0, 0)]
        with kernel_scope(weight.device):
            parts = []
            for block in blocks:
                rows = _select(student_hidden, teacher_hidden, weight, bias, batch.targets, plan.options, place[block])
                parts.append(plan.passes.scan(rows, entropy=plan.entropy))
                del rows  # before the next block's
            statistics = RowStatistics.joined(parts)

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(counts.numel()).index_copy_(0, place, values).view(counts.shape)

        logprob = spread(statistics.logprob)
        gate = batch.judge(logprob[0], logprob[1:], plan.settings, plan.implementation)
        ctx.save_for_backward(
            student_hidden,
            weight,
            bias,
            batch.targets,
            batch.rollout_offsets,
            gate.token_coefficient,
            spread(statistics.row_max)[0],
            spread(statistics.log_normalizer)[0],
        )
        ctx.plan = plan
        entropy = None if statistics.entropy is None else spread(statistics.entropy)
        output = GatedHeadOutput(
            gate=gate,
            student_logprob=logprob[0],
            teacher_logprob=logprob[1:],
            student_entropy=None if entropy is None else entropy[0],
            teacher_entropy=None if entropy is None else entropy[1:],
        )
        return gate.rollout_loss.clone(), output

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("gated_polarity_head_loss")
        hidden, weight, bias, targets, offsets, coefficient, row_max, log_normalizer = ctx.saved_tensors
        plan: _Plan = ctx.plan
        upstream = grad_loss[RaggedLayout(offsets, len(targets)).rollout] * coefficient
        live = (upstream != 0).nonzero().squeeze(-1)
        with kernel_scope(weight.device):
            gradients = row_gradients(
                plan.passes,
                HeadRows.select(hidden, weight, bias, targets, plan.options, live),
                Normalizer(row_max[live], log_normalizer[live]),
                Upstream(upstream[live], torch.zeros_like(upstream[live])),
                needs=ctx.needs_input_grad[:3],
                hidden_dtype=hidden.dtype,
            )
        grad_hidden = gradients.hidden
        if grad_hidden is not None:
            grad_hidden = torch.zeros_like(hidden).index_copy_(0, live, grad_hidden)
        return grad_hidden, gradients.weight, gradients.bias, None, None, None


def _select(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    options: HeadOptions,
    place: Tensor,
) -> HeadRows:
    """The rows [R] at ``place`` of [1 + K, M], the student's first, copied into one [R, D]; ``place`` must rise."""
    num_tokens, width = student_hidden.shape
    num_student = int((place < num_tokens).sum())
    own, others = place[:num_student], place[num_student:] - num_tokens
    hidden = student_hidden.new_empty(len(place), width)
    torch.index_select(student_hidden.detach(), 0, own, out=hidden[:num_student])
    torch.index_select(teacher_hidden.flatten(0, 1), 0, others, out=hidden[num_student:])
    return HeadRows(hidden, targets[place % max(1, num_tokens)], weight, bias, options)


def _reference(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    batch: _Batch,
    options: HeadOptions,
    entropy: bool,
    settings: GateSettings,
) -> GatedHeadOutput:
    """Whole logits, autograd, textbook loss."""
    head: dict[str, Any] = {"bias": bias, "temperature": options.temperature, "softcap": options.softcap}
    head |= {"vocab_limit": options.vocab_limit, "entropy": entropy}
    with kernel_scope(weight.device):
        student = reference.linear_logprob(
            student_hidden, weight, batch.targets.where(batch.loss_mask, _IGNORED), **head
        )
        with torch.no_grad():
            counts = batch.counts()[1:]
            targets = batch.targets.expand_as(counts).where(counts, _IGNORED)
            teacher = reference.linear_logprob(teacher_hidden.flatten(0, 1), weight, targets.flatten(), **head)
    teacher_logprob = teacher.logprob.view(counts.shape)
    gate = batch.judge(student.logprob, teacher_logprob, settings, "reference")
    return GatedHeadOutput(
        gate=gate,
        student_logprob=student.logprob.detach(),
        teacher_logprob=teacher_logprob,
        student_entropy=student.entropy,
        teacher_entropy=None if teacher.entropy is None else teacher.entropy.view(counts.shape),
    )
