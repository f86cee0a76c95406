"""The gate in plain torch: any device, float64-capable. Nothing of it grows with the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from sgsd_kernels.gate.closed_form import CountedTokens, gated_loss, gated_loss_slope, judge
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings


def gated_polarity(
    student_logprob: Tensor,
    teacher_logprob: Tensor,
    tokens: CountedTokens,
    outcome: Tensor,
    settings: GateSettings,
) -> GatedPolarityOutput:
    """As `sgsd_kernels.gated_polarity`, of ``tokens`` that are checked."""
    with torch.no_grad():
        log_ratio = tokens.clean(teacher_logprob.to(tokens.dtype) - student_logprob.to(tokens.dtype).unsqueeze(1))
        stances = judge(log_ratio, tokens, outcome, settings)
        row_loss = tokens.mean(gated_loss(log_ratio, settings.gate_temperature))
        slope = gated_loss_slope(log_ratio, settings.gate_temperature)  # dr / dlogprob is -1
        coefficient = -(tokens.token_weight(stances.polarity) * slope).sum(1)
    return stances.output(student_logprob, coefficient, row_loss, tokens)
