"""From log-probabilities to stance, polarity and loss, with the gradient in closed form: one scalar per token."""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels import reference_gate
from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.gate import (
    ClosedForm,
    CountedTokens,
    GatedPolarityOutput,
    GateSettings,
    PolarityRule,
    gated_loss,
    gated_loss_slope,
    judge,
)
from sgsd_kernels.reference import accumulation_dtype


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
        return reference_gate.gated_polarity(
            student_logprob, teacher_logprob, loss_mask, context_weight, outcome, settings
        )
    if chosen == "chunked":
        return _in_torch(student_logprob, teacher_logprob, tokens, outcome, settings)
    num_rollouts, num_tokens = loss_mask.shape
    rows = torch.arange(num_rollouts, device=loss_mask.device)
    return _by_kernel(
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
        return _by_kernel(
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


def check_ragged(
    student: Tensor,
    teacher: Tensor,
    loss_mask: Tensor,
    rollout_offsets: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
) -> None:
    """Refuse packed rollouts whose parts do not fit: student [M, ...], teacher [K, M, ...], loss_mask [M].

    Raises:
        ValueError: naming the argument.
    """
    num_tokens = loss_mask.shape[0]
    num_rollouts = len(rollout_offsets) - 1
    if loss_mask.dim() != 1 or len(student) != num_tokens or teacher.shape[1:2] != loss_mask.shape:
        raise ValueError(
            f"the student's tokens must be [M], the teachers' [K, M] with loss_mask's M = {num_tokens}; "
            f"got {list(student.shape)} and {list(teacher.shape)}"
        )
    if context_weight.shape != (num_rollouts, len(teacher)) or outcome.shape != (num_rollouts,):
        raise ValueError(
            f"with {num_rollouts} rollouts and {len(teacher)} contexts, context_weight must be [B, K] and outcome [B]; "
            f"got {list(context_weight.shape)} and {list(outcome.shape)}"
        )
    if rollout_offsets.device.type == "cpu":
        bounds = rollout_offsets.tolist()
        if not bounds or bounds[0] != 0 or bounds[-1] != num_tokens or sorted(bounds) != bounds:
            raise ValueError(f"rollout_offsets must rise from 0 to M = {num_tokens}; got {bounds}")


class RaggedLayout:
    """Where M packed tokens of B rollouts are in a padded [B, T]."""

    def __init__(self, rollout_offsets: Tensor, num_tokens: int) -> None:
        self.lengths = rollout_offsets.diff()
        rows = torch.arange(len(self.lengths), device=rollout_offsets.device)
        self.rollout = torch.repeat_interleave(rows, self.lengths, output_size=num_tokens)
        """[M]: the rollout of each token."""
        self._offsets = rollout_offsets

    @property
    def longest(self) -> int:
        """T (one device synchronisation)."""
        return int(self.lengths.max()) if self.lengths.numel() else 0

    @property
    def place(self) -> Tensor:
        """[M]: index of each token in the flattened [B, T]."""
        step = torch.arange(len(self.rollout), device=self.rollout.device) - self._offsets[self.rollout]
        return self.rollout * self.longest + step

    def pad(self, values: Tensor) -> Tensor:
        """[..., M] to [..., B, T] with 0 elsewhere; differentiable in the values."""
        shape = (len(self.lengths), self.longest)
        padded = values.new_zeros(*values.shape[:-1], shape[0] * shape[1]).index_copy(-1, self.place, values)
        return padded.unflatten(-1, shape)


def _in_torch(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    tokens: CountedTokens,
    outcome: Tensor,
    settings: GateSettings,
) -> GatedPolarityOutput:
    with torch.no_grad():
        log_ratio = tokens.clean(teacher_logprob.to(tokens.dtype) - student_logprob.to(tokens.dtype).unsqueeze(1))
        stances = judge(log_ratio, tokens, outcome, settings)
        row_loss = tokens.mean(gated_loss(log_ratio, settings.gate_temperature))
        slope = gated_loss_slope(log_ratio, settings.gate_temperature)  # dr / dlogprob is -1
        coefficient = -(tokens.token_weight(stances.polarity) * slope).sum(1)
    return stances.output(student_logprob, coefficient, row_loss, tokens)


def _by_kernel(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    loss_mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    settings: GateSettings,
    *,
    starts: Tensor,
    lengths: Tensor,
    teacher_starts: Tensor,
    context_stride: int,
    rollout: Tensor | None,
) -> GatedPolarityOutput:
    from sgsd_kernels.triton_kernels.gate import gate

    with kernel_scope(student_logprob.device):
        results = gate(
            student_logprob.detach(),
            teacher_logprob.detach(),
            loss_mask.bool(),
            context_weight.detach(),
            outcome.detach(),
            starts=starts,
            lengths=lengths,
            teacher_starts=teacher_starts,
            context_stride=context_stride,
            gate_temperature=settings.gate_temperature,
            log_ratio_clip=settings.log_ratio_clip,
            stance_threshold=settings.stance_threshold,
            imitate=settings.polarity == "imitate",
        )
    return GatedPolarityOutput(
        rollout_loss=ClosedForm.apply(student_logprob, results.rollout_loss, results.coefficient, rollout),
        token_coefficient=results.coefficient,
        stance_score=results.stance_score,
        raw_stance_score=results.raw_stance_score,
        stance=results.stance,
        polarity=results.polarity,
        gated_loss=results.gated_loss,
        clipped_token_frac=results.clipped_token_frac,
    )
