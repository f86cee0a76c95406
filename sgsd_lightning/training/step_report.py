"""What one optimizer step came to, put together over its micro-batches and handed over once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sgsd_lightning.distributed.processes import gather_from_processes
from sgsd_lightning.metrics.measurements import Measurement, Total, combine
from sgsd_lightning.metrics.timing import PhaseTimer
from sgsd_lightning.training.learner import Learner, LearnerStep
from sgsd_lightning.training.step_record import observations
from sgsd_lightning.types import Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """One optimizer step, for callbacks."""

    step: int
    """Its number, from 1."""
    metrics: Mapping[str, float]
    """What all processes measured over the step; the same on every process."""
    micro_batches: Sequence[Mapping[str, LearnerStep]]
    """Of this process, in order: each learner's by name."""
    timer: PhaseTimer
    """The phases of the step; callbacks time their own work with it."""

    @property
    def learner_steps(self) -> list[LearnerStep]:
        """All of them, micro-batch by micro-batch."""
        return [step for micro_batch in self.micro_batches for step in micro_batch.values()]


class StepWindow:
    """Collects the micro-batches of an optimizer step.

    Args:
        learners: By name; with several, the metrics of each stand under its name.
        timer: Of the step's phases.
    """

    def __init__(self, learners: Mapping[str, Learner], timer: PhaseTimer) -> None:
        self._learners = learners
        self._timer = timer
        self._micro_batches: list[Mapping[str, LearnerStep]] = []

    def add(self, steps: Mapping[str, LearnerStep], weight: float) -> Tensor:
        """Take a micro-batch; the scalar to minimise is the sum of its learners' losses times what it counts."""
        self._micro_batches.append(steps)
        losses = [step.loss for step in steps.values()]
        return sum(losses[1:], start=losses[0]) * weight

    def complete(self, step: int) -> StepReport:
        """Measure the step over all processes and let the parts observe it; a collective."""
        micro_batches, self._micro_batches = self._micro_batches, []
        for name, learner in self._learners.items():
            observations = _gathered_observations([steps[name] for steps in micro_batches])
            for part in learner.parts.values():
                part.observe(step, observations)
        window = [self._measurements(steps) for steps in micro_batches]
        counts = {
            self._prefixed(name, f"{part}/{what}"): Total(count)
            for name, learner in self._learners.items()
            for part, entry in learner.parts.items()
            for what, count in entry.counts().items()
        }
        return StepReport(step=step, metrics=combine([*window, counts]), micro_batches=micro_batches, timer=self._timer)

    def _measurements(self, steps: Mapping[str, LearnerStep]) -> dict[str, Measurement]:
        return {
            self._prefixed(name, metric): value
            for name, step in steps.items()
            for metric, value in step.measurements.items()
        }

    def _prefixed(self, name: str, metric: str) -> str:
        return metric if len(self._learners) == 1 else f"{name}/{metric}"


def _gathered_observations(steps: Sequence[LearnerStep]) -> list[Observation]:
    """Of all micro-batches and processes; rollouts are evidence once, however many updates are taken on them."""
    own = [entry for step in steps if not step.record.is_reused for entry in observations(step.record)]
    return [entry for part in gather_from_processes(own) for entry in part]
