"""Evaluation by sampling while training: k completions per problem, judged, counted and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from sgsd_lightning.contexts import ProblemContextBuilder
from sgsd_lightning.engines import RolloutEngine
from sgsd_lightning.metrics.accuracy import AverageAtK, MajorityAtK, PassAtK
from sgsd_lightning.metrics.measurements import Measurement, combine
from sgsd_lightning.rollouts import EvaluationTurn, Rollouter
from sgsd_lightning.training.step_metrics import rollout_metrics
from sgsd_lightning.types import JudgedRollout, SamplingSettings
from sgsd_lightning.verifiers import Verifier


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How ``validate`` and ``test`` sample and judge."""

    group_size: int = 4
    """The k of avg@k and pass@k: samples of each problem."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    contexts: ProblemContextBuilder | None = None
    """None evaluates plain prompts. A builder shows each problem's contexts, one per sample in turn (Base+Skill)."""
    rollouts: Rollouter | None = None
    """What samples; None takes a single turn by training's engine. Its own settings then replace the three above."""
    verifier: Verifier | None = None
    """None takes training's. A judge that grades for training should not grade its own success."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError(f"evaluation.group_size must be at least 1; got {self.group_size}")

    def rollouter(self, engine: RolloutEngine) -> Rollouter:
        """What samples, with ``engine`` where no rollouter was chosen."""
        return self.rollouts or EvaluationTurn(engine, self.sampling, self.group_size, self.contexts)


class SampledEvaluation(nn.Module):
    """The running result of one evaluation; a module, so that its counters follow the policy's device.

    Args:
        group_size: k.
    """

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.average_at_k = AverageAtK()
        self.pass_at_k = PassAtK(group_size)
        self.majority_at_k = MajorityAtK()
        self._window: list[dict[str, Measurement]] = []

    def update(self, judged: Sequence[JudgedRollout]) -> None:
        """Add problems: their k samples each, one problem after the other."""
        verdicts = [entry.verdict for entry in judged]
        accepted = torch.tensor([verdict.accepted is True for verdict in verdicts], device=self.average_at_k.device)
        correct = accepted.view(-1, self.group_size)  # [problems, k]
        self.average_at_k.update(correct)
        self.pass_at_k.update(correct)
        answers = [verdict.answer for verdict in verdicts]
        k = self.group_size
        self.majority_at_k.update([answers[start : start + k] for start in range(0, len(answers), k)], correct)
        self._window.append(rollout_metrics(judged))

    def take(self) -> dict[str, float]:
        """``avg@k``, ``pass@k``, ``majority@k`` and rollout metrics over all batches of all processes; starts anew."""
        metrics = {"avg@k": self.average_at_k, "pass@k": self.pass_at_k, "majority@k": self.majority_at_k}
        result = {name: float(metric.compute()) for name, metric in metrics.items()}
        result |= {name.removeprefix("rollout/"): value for name, value in combine(self._window).items()}
        for metric in metrics.values():
            metric.reset()
        self._window = []
        return result
