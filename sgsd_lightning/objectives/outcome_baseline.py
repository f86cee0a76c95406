"""What an outcome is compared with before it weighs a teacher: ours, not the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sgsd_lightning.distributed.processes import sum_over_processes
from sgsd_lightning.objectives.advantages import group_advantages
from sgsd_lightning.types import Observation
from sgsd_lightning.types.arguments import require, require_choice

BaselineName = Literal["none", "group", "batch", "running"]


class OutcomeBaseline:
    """The mean of outcomes that a rollout's own outcome is compared with.

    With one, a problem, batch or run in which everything is wrong, or everything is right, moves nothing. Outcomes of
    0, which say nothing, stay 0 and are in no mean.

    Args:
        name: ``none`` is the paper: the outcome itself. ``group`` takes the mean over the problem's rollouts,
            ``batch`` over the micro-batch of all processes, ``running`` over earlier optimizer steps.
        decay: of the running mean per optimizer step, in [0, 1).
    """

    def __init__(self, name: BaselineName, decay: float) -> None:
        require_choice(BaselineName, "objective.outcome_baseline", name)
        require(0 <= decay < 1, "objective.baseline_decay", "be at least 0 and below 1", decay)
        self.name = name
        self.decay = decay
        self.running = 0.0
        """The mean outcome of earlier steps; 0 before the first, as without a baseline."""

    def centre(self, outcome: Tensor, group: Tensor) -> Tensor:
        """Return [B] outcomes minus their baseline; a collective for ``batch``.

        Args:
            outcome: [B], +1, -1, or 0 for rollouts that say nothing.
            group: [B] int64, counted from 0.
        """
        if self.name == "none":
            return outcome
        if self.name == "group":
            return group_advantages(outcome, group, normalise=False, is_judged=outcome != 0)
        mean = self.running if self.name == "running" else _mean_over_processes(outcome)
        return torch.where(outcome != 0, outcome - mean, 0.0)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Follow the mean outcome of an optimizer step, over the teachers of its judged rollouts."""
        outcomes = [entry.outcome for entry in observations if entry.outcome != 0]
        if self.name == "running" and outcomes:
            self.running = self.decay * self.running + (1 - self.decay) * sum(outcomes) / len(outcomes)

    def state_dict(self) -> dict[str, float]:
        """Return the running mean; empty without one."""
        return {"outcome_baseline": self.running} if self.name == "running" else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a running mean; a checkpoint of a run without one begins at 0."""
        self.running = float(state.get("outcome_baseline", 0.0))


def _mean_over_processes(outcome: Tensor) -> float:
    """Average the outcomes that say something; a collective."""
    total = sum_over_processes(float(outcome.sum()), outcome.device)
    return total / max(1.0, sum_over_processes(float((outcome != 0).sum()), outcome.device))
