"""The gate by one Triton kernel, a program per rollout: implementations ``triton`` and ``cublas``."""

from __future__ import annotations

from torch import Tensor

from sgsd_kernels.autograd import kernel_scope
from sgsd_kernels.gate.closed_form import ClosedForm
from sgsd_kernels.gate.kernels.gate import gate
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings


def gated_polarity(
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
    """One launch for a padded or a packed layout; ``starts``, ``lengths``, ``teacher_starts`` [B] as in `kernels.gate`.

    ``rollout`` [M] is the rollout of each packed token; None where ``student_logprob`` is [B, T].
    """
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
