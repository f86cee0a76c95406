"""Evaluation by sampling: k completions a problem, judged, counted and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.metrics.accuracy import AverageAtK, MajorityAtK, PassAtK
from sgsd_lightning.metrics.measurements import Measurement, combine
from sgsd_lightning.training.step_metrics import rollout_metrics
from sgsd_lightning.types import Rollout, SamplingSettings, Verdict


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How ``validate`` and ``test`` sample."""

    samples_per_problem: int = 4
    """The k of avg@k and pass@k."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    contexts: ContextBuilder | None = None
    """None evaluates plain prompts. A builder shows each problem's contexts, one a sample in turn (Base+Skill)."""

    def __post_init__(self) -> None:
        if self.samples_per_problem < 1:
            raise ValueError(f"evaluation.samples_per_problem must be at least 1; got {self.samples_per_problem}")


class SampledEvaluation(nn.Module):
    """The running result of one evaluation; a module, so that its counters follow the policy's device.

    Args:
        samples_per_problem: k.
    """

    def __init__(self, samples_per_problem: int) -> None:
        super().__init__()
        self.samples_per_problem = samples_per_problem
        self.average_at_k = AverageAtK()
        self.pass_at_k = PassAtK(samples_per_problem)
        self.majority_at_k = MajorityAtK()
        self._window: list[dict[str, Measurement]] = []

    def update(self, judged: Sequence[tuple[Rollout, Verdict]]) -> None:
        """Add problems: their k samples each, one problem after the other."""
        rollouts, verdicts = [rollout for rollout, _ in judged], [verdict for _, verdict in judged]
        accepted = torch.tensor([verdict.reward > 0 for verdict in verdicts], device=self.average_at_k.device)
        correct = accepted.view(-1, self.samples_per_problem)  # [problems, k]
        self.average_at_k.update(correct)
        self.pass_at_k.update(correct)
        answers = [verdict.answer for verdict in verdicts]
        k = self.samples_per_problem
        self.majority_at_k.update([answers[start : start + k] for start in range(0, len(answers), k)], correct)
        self._window.append(rollout_metrics(rollouts, verdicts))

    def take(self) -> dict[str, float]:
        """``avg@k``, ``pass@k``, ``majority@k`` and rollout metrics over all batches of all processes; starts anew."""
        metrics = {"avg@k": self.average_at_k, "pass@k": self.pass_at_k, "majority@k": self.majority_at_k}
        result = {name: float(metric.compute()) for name, metric in metrics.items()}
        result |= {name.removeprefix("rollout/"): value for name, value in combine(self._window).items()}
        for metric in metrics.values():
            metric.reset()
        self._window = []
        return result
