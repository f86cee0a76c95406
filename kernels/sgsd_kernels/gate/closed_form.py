"""The gated loss and its slope, stances and polarities, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgsd_kernels.autograd import refuse_second_derivative
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings


def gate(log_ratio: Tensor, gate_temperature: float) -> Tensor:
    """sigma(-r^2 / (2 tau)): 1/2 at r = 0, towards 0 for |r| far above sqrt(tau)."""
    return torch.sigmoid(log_ratio.square() / (-2.0 * gate_temperature))


def gated_loss(log_ratio: Tensor, gate_temperature: float) -> Tensor:
    """l(r) = log 2 - log(1 + exp(-r^2 / (2 tau))), in a form that keeps its digits at small r. In [0, log 2]."""
    return -torch.log1p(0.5 * torch.expm1(log_ratio.square() / (-2.0 * gate_temperature)))


def gated_loss_slope(log_ratio: Tensor, gate_temperature: float) -> Tensor:
    """dl/dr = gate(r) r / tau; 0 where r is infinite."""
    weight = gate(log_ratio, gate_temperature)
    return torch.where(weight > 0, weight * log_ratio / gate_temperature, 0.0)


class CountedTokens:
    """Which (rollout, context, token) triples count, and averages over them.

    Args:
        loss_mask: [B, T] bool.
        context_weight: [B, K]; 0 marks an absent context.
        dtype: of everything computed.
    """

    def __init__(self, loss_mask: Tensor, context_weight: Tensor, dtype: torch.dtype) -> None:
        if context_weight.dim() != 2 or loss_mask.dim() != 2 or len(context_weight) != len(loss_mask):
            raise ValueError(
                "loss_mask must be [B, T] and context_weight [B, K] with the same B; "
                f"got {list(loss_mask.shape)} and {list(context_weight.shape)}"
            )
        self.dtype = dtype
        self.context_weight = context_weight.detach().to(dtype)
        self.is_present = self.context_weight != 0  # [B, K]
        self.mask = loss_mask.bool().unsqueeze(1) & self.is_present.unsqueeze(-1)  # [B, K, T]
        self.num_tokens = loss_mask.bool().sum(-1, keepdim=True).clamp(min=1).to(dtype)  # [B, 1]

    def check(self, teacher_logprob: Tensor, outcome: Tensor) -> None:
        """Refuse shapes that would broadcast into something else."""
        if teacher_logprob.shape[:3] != self.mask.shape:
            raise ValueError(
                f"teacher_logprob must begin with [B, K, T] = {list(self.mask.shape)}; "
                f"got {list(teacher_logprob.shape)}"
            )
        if outcome.shape != self.mask.shape[:1]:
            raise ValueError(f"outcome must be [B] with B = {self.mask.shape[0]}; got {list(outcome.shape)}")

    def clean(self, values: Tensor) -> Tensor:
        """``values`` [B, K, T] with 0 wherever a token does not count."""
        return torch.where(self.mask, values, 0.0)

    def mean(self, values: Tensor) -> Tensor:
        """Masked token mean [B, K] of ``values`` [B, K, T]; 0 without a token."""
        return self.clean(values).sum(-1) / self.num_tokens

    def token_weight(self, polarity: Tensor) -> Tensor:
        """w_k rho_k m_t / n: what multiplies l of each token in the rollout's loss. [B, K, T]."""
        return self.mask * (self.context_weight * polarity / self.num_tokens).unsqueeze(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stances:
    """Where each teacher stands on each rollout, all [B, K]; the fields are those of `GatedPolarityOutput`."""

    stance_score: Tensor
    raw_stance_score: Tensor
    stance: Tensor
    polarity: Tensor
    clipped_token_frac: Tensor

    def output(
        self,
        student_logprob: Tensor,
        coefficient: Tensor,
        row_loss: Tensor,
        tokens: CountedTokens,
        **support: Tensor,
    ) -> GatedPolarityOutput:
        """The loss of ``row_loss`` [B, K], with ``coefficient`` as its gradient in ``student_logprob``."""
        loss = (tokens.context_weight * self.polarity * row_loss).sum(-1)
        return GatedPolarityOutput(
            rollout_loss=ClosedForm.apply(student_logprob, loss, coefficient, None),
            token_coefficient=coefficient,
            stance_score=self.stance_score,
            raw_stance_score=self.raw_stance_score,
            stance=self.stance,
            polarity=self.polarity,
            gated_loss=row_loss,
            clipped_token_frac=self.clipped_token_frac,
            **support,
        )


def judge(log_ratio: Tensor, tokens: CountedTokens, outcome: Tensor, settings: GateSettings) -> Stances:
    """Stance and polarity from ``log_ratio`` [B, K, T] (0 where a token does not count); no gradient."""
    clip = settings.log_ratio_clip
    stance_score = tokens.mean(log_ratio.clamp(-clip, clip))
    stance = torch.where(stance_score.abs() > settings.stance_threshold, stance_score.sign(), 0.0)
    if settings.polarity == "imitate":
        polarity = tokens.is_present.to(tokens.dtype)
    else:
        polarity = outcome.detach().to(tokens.dtype).unsqueeze(-1) * stance
    return Stances(
        stance_score=stance_score,
        raw_stance_score=tokens.mean(log_ratio),
        stance=stance,
        polarity=polarity,
        clipped_token_frac=tokens.mean((log_ratio.abs() > clip).to(tokens.dtype)),
    )


class ClosedForm(torch.autograd.Function):
    """A loss per rollout whose gradient in the student's logprobs is already known.

    Arguments: the student's logprobs, the loss [B], the gradient of its sum in them, and the rollout of each entry [M]
    when they are packed, None when their first dimension is B.
    """

    @staticmethod
    def forward(ctx: Any, student_logprob: Tensor, loss: Tensor, coefficient: Tensor, rollout: Tensor | None) -> Tensor:
        ctx.save_for_backward(coefficient, rollout)
        ctx.dtype = student_logprob.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None]:
        refuse_second_derivative("the gated loss")
        coefficient, rollout = ctx.saved_tensors
        upstream = grad_loss if rollout is None else grad_loss[rollout]
        shape = (-1,) + (1,) * (coefficient.dim() - 1)
        return (upstream.reshape(shape) * coefficient).to(ctx.dtype), None, None, None
