"""The settings of the gate, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

PolarityRule = Literal["validated", "imitate"]
"""``validated``: polarity = outcome * stance. ``imitate``: every teacher that is there is helpful."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateSettings:
    """The settings of the gate, checked."""

    gate_temperature: float = 1.0
    """tau > 0, nats squared."""
    log_ratio_clip: float = 3.0
    """C > 0, nats."""
    stance_threshold: float = 0.05
    """theta >= 0, nats per token."""
    polarity: PolarityRule = "validated"

    def __post_init__(self) -> None:
        if not self.gate_temperature > 0:
            raise ValueError(f"gate_temperature must be above 0; got {self.gate_temperature}")
        if not self.log_ratio_clip > 0:
            raise ValueError(f"log_ratio_clip must be above 0; got {self.log_ratio_clip}")
        if not self.stance_threshold >= 0:
            raise ValueError(f"stance_threshold must be 0 or more; got {self.stance_threshold}")
        if self.polarity not in get_args(PolarityRule):
            raise ValueError(f"polarity must be one of {', '.join(get_args(PolarityRule))}; got {self.polarity!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedPolarityOutput:
    """One loss per rollout and the path to it. Entries of absent contexts (context_weight 0) are 0."""

    rollout_loss: Tensor
    """[B]: sum_k w_k rho_k (masked token mean of the gated loss); differentiable in the student's logprobs."""
    token_coefficient: Tensor
    """The gradient of ``rollout_loss.sum()`` in the student's logprobs: c_t [B, T] (without the 1/B of a mean over
    rollouts), or [B, K, T, S] with a local support."""
    stance_score: Tensor
    """[B, K]: masked token mean of the clipped log-ratio, nats per token."""
    raw_stance_score: Tensor
    """[B, K]: the same, not clipped."""
    stance: Tensor
    """[B, K]: sign of ``stance_score``, 0 within the threshold: the teacher likes (+1) or dislikes (-1) the rollout."""
    polarity: Tensor
    """[B, K]: +1 helpful, -1 misleading, 0 neutral or absent."""
    gated_loss: Tensor
    """[B, K]: masked token mean of l."""
    clipped_token_frac: Tensor
    """[B, K]: fraction of the tokens that count whose log-ratio was clipped."""
    support_divergence: Tensor | None = None
    """[B, K]: masked token mean of KL(teacher || student) on the local support, nats; None without one."""
    support_size: Tensor | None = None
    """[B, K]: masked token mean of the number of tokens in the local support; None without one."""

    def with_loss(self, rollout_loss: Tensor) -> GatedPolarityOutput:
        """The same with another tensor for the loss."""
        return replace(self, rollout_loss=rollout_loss)

    def with_coefficient(self, token_coefficient: Tensor) -> GatedPolarityOutput:
        """The same with the coefficients in another layout."""
        return replace(self, token_coefficient=token_coefficient)
