"""From log-probabilities to stance, polarity and loss, with the gradient in closed form: one scalar per token."""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.gate import chunked, reference
from sgsd_kernels.gate.closed_form import CountedTokens
from sgsd_kernels.gate.packed import RaggedLayout, check_ragged
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings, PolarityRule
from sgsd_kernels.head.products import accumulation_dtype


def gated_polarity(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    loss_mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    *,
    gate_temperature: float = 1.0,
    log_ratio_clip: float = 3.0,
    stance_threshold: float = 0.05,
    polarity: PolarityRule = "validated",
    implementation: Implementation = "auto",
) -> GatedPolarityOutput:
    """SGSD's loss per rollout from the log-probabilities of the sampled tokens, over the full vocabulary.

    Args:
        student_logprob: [B, T] nats; the only input that gets a gradient.
        teacher_logprob: [B, K, T] nats. K and T may be 0.
        loss_mask: [B, T] bool, tokens that count; whatever stands elsewhere, NaN included, has no effect.
        context_weight: [B, K]; 0 marks a context that is not there.
        outcome: [B], +1 accepted, -1 rejected, 0 no judgement (all its polarities are 0 when validated).
        gate_temperature: tau > 0, nats squared.
        log_ratio_clip: C > 0, nats.
        stance_threshold: theta >= 0, nats per token.
        polarity: see `PolarityRule`.
        implementation: see `Implementation`; ``triton`` and ``cublas`` are one kernel, ``chunked`` is torch.

    Raises:
        ValueError: a setting out of range, shapes that do not fit one another, or an implementation that cannot run.
    """
    settings = GateSettings(
        gate_temperature=gate_temperature,
        log_ratio_clip=log_ratio_clip,
        stance_threshold=stance_threshold,
        polarity=polarity,
    )
    if student_logprob.shape != loss_mask.shape:
        raise ValueError(
            f"student_logprob must have loss_mask's shape [B, T] = {list(loss_mask.shape)}; "
            f"got {list(student_logprob.shape)}"
        )
    tokens = CountedTokens(loss_mask, context_weight, accumulation_dtype(student_logprob.dtype))
    tokens.check(teacher_logprob, outcome)
    chosen = resolve_implementation(implementation, Workload.of("gated_polarity", student_logprob, teacher_logprob))
    if chosen == "reference":
        return reference.gated_polarity(student_logprob, teacher_logprob, loss_mask, context_weight, outcome, settings)
    if chosen == "chunked":
        return chunked.gated_polarity(student_logprob, teacher_logprob, tokens, outcome, settings)
    from sgsd_kernels.gate import triton

    num_rollouts, num_tokens = loss_mask.shape
    rows = torch.arange(num_rollouts, device=loss_mask.device)
    return triton.gated_polarity(
        student_logprob,
        teacher_logprob,
        loss_mask,
        context_weight,
        outcome,
        settings,
        starts=rows * num_tokens,
        lengths=torch.full_like(rows, num_tokens),
        teacher_starts=rows * (num_tokens * context_weight.shape[1]),
        context_stride=num_tokens,
        rollout=None,
    )


def ragged_gated_polarity(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    loss_mask: Tensor,
    rollout_offsets: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    *,
    gate_temperature: float = 1.0,
    log_ratio_clip: float = 3.0,
    stance_threshold: float = 0.05,
    polarity: PolarityRule = "validated",
    implementation: Implementation = "auto",
) -> GatedPolarityOutput:
    """As `gated_polarity` for rollouts that lie one behind the other, without padding.

    Args:
        student_logprob: [M] nats, the tokens of all rollouts.
        teacher_logprob: [K, M] nats.
        loss_mask: [M] bool.
        rollout_offsets: [B + 1] int64, rising from 0 to M: rollout b is ``rollout_offsets[b] : rollout_offsets[b+1]``.
        context_weight, outcome and the settings: as in `gated_polarity`.

    Returns:
        As `gated_polarity`, but ``token_coefficient`` is [M].

    Raises:
        ValueError: as `gated_polarity`; offsets of the wrong length, on the CPU offsets that do not rise from 0 to M.
    """
    check_ragged(student_logprob, teacher_logprob, loss_mask, rollout_offsets, context_weight, outcome)
    settings = {
        "gate_temperature": gate_temperature,
        "log_ratio_clip": log_ratio_clip,
        "stance_threshold": stance_threshold,
    }
    checked = GateSettings(**settings, polarity=polarity)
    workload = Workload.of("gated_polarity", student_logprob, teacher_logprob)
    chosen = resolve_implementation(implementation, workload)
    layout = RaggedLayout(rollout_offsets, len(loss_mask))
    if chosen in ("triton", "cublas"):
        from sgsd_kernels.gate import triton

        return triton.gated_polarity(
            student_logprob,
            teacher_logprob,
            loss_mask,
            context_weight,
            outcome,
            checked,
            starts=rollout_offsets[:-1],
            lengths=layout.lengths,
            teacher_starts=rollout_offsets[:-1],
            context_stride=len(loss_mask),
            rollout=layout.rollout,
        )
    output = gated_polarity(
        layout.pad(student_logprob),
        layout.pad(teacher_logprob).transpose(0, 1),
        layout.pad(loss_mask),
        context_weight,
        outcome,
        **settings,
        polarity=polarity,
        implementation=chosen,  # type: ignore[arg-type]
    )
    return output.with_coefficient(output.token_coefficient.flatten()[layout.place])
