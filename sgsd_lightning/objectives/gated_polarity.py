"""SGSD's objective: move towards helpful teachers, away from misleading ones, and ignore neutral ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from sgsd_kernels import GatedPolarityOutput, GateSettings, PolarityRule, gated_polarity, gated_support
from sgsd_kernels.gate.closed_form import gated_loss_slope
from torch import Tensor

from sgsd_lightning.metrics.measurements import Measurement, mean_where
from sgsd_lightning.objectives.base import Objective, ObjectiveResult
from sgsd_lightning.objectives.outcome_baseline import BaselineName, OutcomeBaseline
from sgsd_lightning.types import Observation, ScoreRequest, TeacherStances, TokenScores, Verdict

LARGEST_SLOPE = 0.392952
"""The largest dl/dr at tau = 1, where r = 1.2156; at another temperature it is divided by sqrt(tau)."""


class GatedPolarity(Objective):
    """The gated objective of arXiv 2605.28791 over K teachers and one rollout each.

    Equation, with r = teacher logprob - student logprob (r > 0: the teacher likes the token more)::

        stance_score  s_k = sum_t m_t clip(r_kt, -C, C) / n
        stance        a_k = sign(s_k) if |s_k| > theta else 0
        polarity      rho_k = outcome * a_k
        gated loss    l(r) = log 2 - log(1 + exp(-r^2 / (2 tau)))
        L = mean over rollouts of  sum_k w_k rho_k sum_t m_t l(r_kt) / n

    Args:
        gate_temperature: tau > 0, in nats squared; smaller ignores strong disagreement sooner.
        log_ratio_clip: C > 0, in nats; bounds one token's effect on the stance.
        stance_threshold: theta >= 0, in nats per token; a weaker stance is neutral.
        support_top_k: -1 compares full-vocabulary log-probabilities (the paper's setting). Above 0, both
            distributions are restricted to the teacher's top-k tokens plus the sampled one, and the gate reads their
            KL divergence instead of r.
        polarity: ``validated`` as above; ``imitate`` takes every teacher as helpful, whatever the verifier says
            (an ablation that trusts the bank blindly).
        outcome_baseline: what an outcome is compared with (see `OutcomeBaseline`): ``none``, the paper's setting,
            ``group``, ``batch`` or ``running``. With one, rho_k = (outcome - baseline) * a_k.
        baseline_decay: of the ``running`` baseline, per optimizer step.
    """

    def __init__(
        self,
        gate_temperature: float = 1.0,
        log_ratio_clip: float = 3.0,
        stance_threshold: float = 0.05,
        support_top_k: int = -1,
        polarity: PolarityRule = "validated",
        outcome_baseline: BaselineName = "none",
        baseline_decay: float = 0.9,
    ) -> None:
        self.gate = GateSettings(
            gate_temperature=gate_temperature,
            log_ratio_clip=log_ratio_clip,
            stance_threshold=stance_threshold,
            polarity=polarity,
        )
        if support_top_k != -1 and support_top_k < 1:
            raise ValueError(f"support_top_k must be -1 (full vocabulary) or above 0; got {support_top_k}")
        if polarity == "imitate" and outcome_baseline != "none":
            raise ValueError(
                f"objective.outcome_baseline must be none where objective.polarity is imitate, which reads no outcome; "
                f"got {outcome_baseline!r}"
            )
        self.support_top_k = support_top_k
        self.baseline = OutcomeBaseline(outcome_baseline, baseline_decay)

    @property
    def needs_teachers(self) -> bool:
        return True

    @property
    def compares_siblings(self) -> bool:
        return self.baseline.name == "group"

    @property
    def score_request(self) -> ScoreRequest:
        return ScoreRequest(entropy=True, support_top_k=self.support_top_k)

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        outcome = _outcomes(verdicts, scores.student_logprob.device)
        output = self._evaluate(scores, self.baseline.centre(outcome, scores.group))
        stances = TeacherStances(
            stance_score=output.stance_score.detach(),
            stance=output.stance.detach(),
            polarity=self._polarity(output, outcome),
            gated_loss=output.gated_loss.detach(),
        )
        return ObjectiveResult(
            loss=_mean(output.rollout_loss), metrics=_metrics(output, stances, scores), stances=stances
        )

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        self.baseline.observe(observations)

    def state_dict(self) -> Mapping[str, Any]:
        return self.baseline.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.baseline.load_state_dict(state)

    def _polarity(self, output: GatedPolarityOutput, outcome: Tensor) -> Tensor:
        """Return what the verdict says of each teacher, whatever it is compared with: evidence on the bank."""
        if self.baseline.name == "none":
            return output.polarity.detach()
        return outcome[:, None] * output.stance.detach()

    def token_gate(self, log_ratio: Tensor) -> Tensor | None:
        """|dl/dr| over its largest value; None where the gate reads the divergence on a local support."""
        if self.support_top_k > 0:
            return None
        slope = gated_loss_slope(log_ratio, self.gate.gate_temperature).abs()
        return slope * (self.gate.gate_temperature**0.5 / LARGEST_SLOPE)

    def _evaluate(self, scores: TokenScores, outcome: Tensor) -> GatedPolarityOutput:
        if scores.support is None:
            return gated_polarity(
                scores.student_logprob,
                scores.teacher_logprob,
                scores.loss_mask,
                scores.context_weight,
                outcome,
                **asdict(self.gate),
            )
        return gated_support(
            scores.support.student_logprob,
            scores.support.teacher_logprob,
            scores.support.target_slot,
            scores.loss_mask,
            scores.context_weight,
            outcome,
            **asdict(self.gate),
        )


def _outcomes(verdicts: Sequence[Verdict], device: torch.device) -> Tensor:
    return torch.tensor([verdict.outcome for verdict in verdicts], dtype=torch.float32, device=device)


def _metrics(output: GatedPolarityOutput, stances: TeacherStances, scores: TokenScores) -> dict[str, Measurement]:
    """Means over the teachers that are there, without a device synchronisation.

    A rollout is active if it moves the policy, which by a baseline it may not although its teachers take a stance.
    """
    is_present = scores.context_weight > 0  # [B, K]
    has_signal = ((output.polarity != 0) & is_present).any(dim=-1)
    means = {
        "stance_score": output.stance_score,
        "stance_score_raw": output.raw_stance_score,
        "gated_loss": output.gated_loss,
        "clipped_token_frac": output.clipped_token_frac,
        "helpful_frac": stances.polarity > 0,
        "misleading_frac": stances.polarity < 0,
        "neutral_frac": stances.polarity == 0,
    }
    return {
        **{f"objective/{name}": mean_where(value, is_present) for name, value in means.items()},
        "objective/active_rollout_frac": mean_where(has_signal, torch.ones_like(has_signal)),
    }


def _mean(values: Tensor) -> Tensor:
    """Return the mean; 0 of nothing."""
    return values.sum() / max(1, values.numel())
