"""Several objectives on the same scores, such as a policy gradient beside distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgsd_lightning.objectives.base import Objective, ObjectiveResult
from sgsd_lightning.types import Observation, ScoreRequest, TokenScores, Verdict
from sgsd_lightning.types.arguments import require


class WeightedSum(Objective):
    """L = sum over objectives of weight * L_i. The metrics of the i-th are logged under ``objective_i/``.

    The first objective that measures stances gives the evidence on the bank.

    Args:
        objectives: at least one.
        weights: one finite number per objective.
    """

    def __init__(self, objectives: list[Objective], weights: list[float]) -> None:
        if not objectives or len(objectives) != len(weights):
            raise ValueError(
                f"objective.weights must hold one number per objective; got {len(objectives)} objectives and "
                f"{len(weights)} weights"
            )
        is_finite = all(math.isfinite(weight) for weight in weights)
        require(is_finite, "objective.weights", "be finite numbers", weights)
        self.objectives = objectives
        self.weights = weights
        self._request = _unite([objective.score_request for objective in objectives])

    @property
    def needs_teachers(self) -> bool:
        return any(objective.needs_teachers for objective in self.objectives)

    @property
    def compares_siblings(self) -> bool:
        return any(objective.compares_siblings for objective in self.objectives)

    @property
    def score_request(self) -> ScoreRequest:
        return self._request

    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        results = [objective(scores, verdicts) for objective in self.objectives]
        stances = next((result.stances for result in results if result.stances is not None), None)
        loss = torch.stack([weight * result.loss for weight, result in zip(self.weights, results, strict=True)]).sum()
        metrics = {
            f"objective_{number}/{name.removeprefix('objective/')}": value
            for number, result in enumerate(results, start=1)
            for name, value in {**result.metrics, "objective/loss": result.loss.detach()}.items()
        }
        return ObjectiveResult(loss=loss, metrics=metrics, stances=stances)

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        for objective in self.objectives:
            objective.observe(step, observations)

    def state_dict(self) -> Mapping[str, Any]:
        states = {str(number): dict(objective.state_dict()) for number, objective in enumerate(self.objectives)}
        return {number: state for number, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for number, objective in enumerate(self.objectives):
            objective.load_state_dict(state.get(str(number), {}))

    def token_gate(self, log_ratio: Tensor) -> Tensor | None:
        """Return the gate of the first objective that has one."""
        gates = (objective.token_gate(log_ratio) for objective in self.objectives)
        return next((gate for gate in gates if gate is not None), None)


def _unite(requests: Sequence[ScoreRequest]) -> ScoreRequest:
    supports = {request.support_top_k for request in requests if request.support_top_k > 0}
    divergences = {request.divergence for request in requests if request.divergence is not None}
    if len(supports) > 1 or len(divergences) > 1:
        raise ValueError(
            "objective.objectives ask for different supports or divergences, and a step computes one of each; "
            f"got support_top_k {sorted(supports)} and {len(divergences)} divergences"
        )
    return ScoreRequest(
        entropy=any(request.entropy for request in requests),
        support_top_k=next(iter(supports), -1),
        divergence=next(iter(divergences), None),
    )
