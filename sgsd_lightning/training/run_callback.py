"""Callbacks of a run: each receives every step once, in the order of their phases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types import JudgedRollout


class StepPhase(IntEnum):
    """When a callback deals with a complete step; those of one phase do not depend on one another."""

    LEARN = 0
    """Changes what later steps read, such as the skill bank."""
    MEASURE = 1
    """Writes and logs what the step and the phase before it came to."""
    GUARD = 2
    """Decides whether the run continues."""
    SAVE = 3
    """Writes checkpoints of all that came before."""
    STOP = 4
    """Ends the process."""


class RunCallback(Callback):
    """A callback that receives whole optimizer steps, whatever the number of micro-batches.

    Subclasses override the hooks below; the order in which callbacks are listed does not matter.
    """

    phase: StepPhase = StepPhase.MEASURE

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        """A step was taken and its metrics were logged; called once on every process, ``trainer.global_step`` counts
        it already. ``module.log`` works here.
        """

    def on_evaluated(
        self, trainer: Trainer, module: LightningModule, stage: str, judged: Sequence[JudgedRollout]
    ) -> None:
        """A batch of ``validate``, ``test`` or ``predict`` was sampled and judged on this process."""


def run_callbacks(trainer: Trainer) -> Iterator[RunCallback]:
    """The run's, in the order of their phases."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, RunCallback)]  # type: ignore[attr-defined]
    return iter(sorted(found, key=lambda callback: callback.phase))
