"""Rollouts of a whole optimizer step, sampled at once and handed out one micro-batch at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sgsd_lightning.types import Problem, Rollout


class RolloutsAhead:
    """Holds the rollouts of a step's micro-batches until their turn comes.

    No checkpoint holds them: a rollout derives from the weights, the step and its problem, so that a run that resumes
    in the middle of a step samples what is left of it again.
    """

    def __init__(self) -> None:
        self._step = -1
        self._left: deque[tuple[list[str], Sequence[Rollout]]] = deque()

    def has_left(self, step: int) -> bool:
        """Whether rollouts of optimizer step ``step`` are left; the same on every process."""
        return self._step == step and bool(self._left)

    def keep(
        self, batches: Sequence[Sequence[Problem]], rollouts: Sequence[Rollout], group_size: int, step: int
    ) -> None:
        """Keep a step's rollouts in place of what was left.

        Args:
            batches: The problems of each micro-batch, in order.
            rollouts: ``group_size`` of each problem, one problem after the other.
            group_size: Rollouts of a problem.
            step: The optimizer step.

        Raises:
            RuntimeError: if there are more or fewer rollouts.
        """
        num_expected = group_size * sum(len(problems) for problems in batches)
        if len(rollouts) != num_expected:
            raise RuntimeError(
                f"the rollouter gave {len(rollouts)} rollouts where {num_expected} were wanted, {group_size} of each "
                "problem; Rollouter.sample must give one per wanted rollout, in their order"
            )
        self._step = step
        self._left.clear()
        start = 0
        for problems in batches:
            end = start + group_size * len(problems)
            self._left.append((_ids(problems), rollouts[start:end]))
            start = end

    def take(self, problems: Sequence[Problem]) -> list[Rollout]:
        """Return the next micro-batch's rollouts, and forget them.

        Raises:
            RuntimeError: if they are of other problems, because the data loader announced others than it gave.
        """
        announced, rollouts = self._left.popleft()
        if announced != _ids(problems):
            raise RuntimeError(
                f"the data loader announced problems {announced} for this micro-batch (ProblemBatch.following) and "
                f"gave {_ids(problems)}; both must be the same"
            )
        return list(rollouts)

    def clear(self) -> None:
        """Forget what is left."""
        self._left.clear()


def _ids(problems: Sequence[Problem]) -> list[str]:
    return [problem.problem_id for problem in problems]
