"""Rollouts of a whole optimizer step, sampled at once and handed out one micro-batch at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sgsd_lightning.types import Problem, Rollout


class RolloutsAhead:
    """Holds the rollouts of a step's micro-batches from when they were sampled until their turn comes.

    Nothing of this is in a checkpoint: a rollout depends on the weights, the step and its problem, so that a run that
    resumes in the middle of a step samples the rest of it again.
    """

    def __init__(self) -> None:
        self._step = -1
        self._waiting: deque[tuple[list[str], list[Rollout]]] = deque()

    def holds(self, step: int) -> bool:
        """Whether rollouts of optimizer step ``step`` are left; the same on every process."""
        return self._step == step and bool(self._waiting)

    def keep(self, batches: Sequence[Sequence[Problem]], rollouts: Sequence[Rollout], step: int) -> None:
        """Keep a step's rollouts in place of what was left.

        Args:
            batches: The problems of each micro-batch, in their order.
            rollouts: Equally many of every problem, one problem after the other.
            step: The optimizer step.
        """
        num_problems = sum(len(problems) for problems in batches)
        group_size = len(rollouts) // num_problems if num_problems else 0
        self._step = step
        self._waiting.clear()
        start = 0
        for problems in batches:
            end = start + group_size * len(problems)
            self._waiting.append((_ids(problems), list(rollouts[start:end])))
            start = end

    def take(self, problems: Sequence[Problem]) -> list[Rollout]:
        """Return the next micro-batch's rollouts, and forget them.

        Raises:
            RuntimeError: if they are of other problems, by a loader that announced others than it gives.
        """
        announced, rollouts = self._waiting.popleft()
        if announced != _ids(problems):
            raise RuntimeError(
                f"the data loader announced problems {announced} for this micro-batch (MicroBatch.following) and gave "
                f"{_ids(problems)}; both must be the same"
            )
        return rollouts

    def clear(self) -> None:
        """Forget what is left, when training begins or resumes."""
        self._waiting.clear()


def _ids(problems: Sequence[Problem]) -> list[str]:
    return [problem.problem_id for problem in problems]
