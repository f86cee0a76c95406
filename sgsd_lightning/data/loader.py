"""Batches of problems in an order that depends on the seed alone, which can be resumed in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from sgsd_lightning.types import Problem, ProblemBatch


class ProblemLoader:
    """Batches of one process's share of the problems, resumable in the middle of an epoch.

    Every process walks the same global order and takes its own slice of each global batch, so that the problems of a
    step do not depend on the number of processes. All processes get as many batches; where the problems run out, the
    last ones may be smaller or empty. At evaluation every problem comes once.

    Args:
        problems: all problems.
        batch_size: problems in one batch of one process.
        rank: this process, counted from 0.
        world_size: number of processes.
        seed: what the training order derives from; None keeps the order of the problems.
        drop_last: leave out the end of an epoch that does not fill a window, or a batch where no window is full.
        repeats: how often a window of batches is handed out in a row, before the next one.
        window: batches in an optimizer step. With repeats, an end of an epoch that does not fill a window is left out.
        limit: of batches that the trainer takes of an epoch: a number, or a share of them.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
        drop_last: bool = False,
        repeats: int = 1,
        window: int = 1,
        limit: int | float = 1.0,
    ) -> None:
        self.problems = problems
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.drop_last = drop_last
        self.repeats = repeats
        self.window = window
        self.limit = limit
        self.epoch = -1
        self.num_batches_done = 0
        self._is_resumed = False

    def __len__(self) -> int:
        if self.repeats == 1:
            return self._num_batches()
        return self._num_batches() // self.window * self.window * self.repeats

    def _num_batches(self) -> int:
        """The number of distinct batches in an epoch."""
        global_batch = self.batch_size * self.world_size
        if not self.drop_last:
            return -(-len(self.problems) // global_batch)
        num_full = len(self.problems) // global_batch
        # however a step is split, the epoch ends at the same problem
        return num_full // self.window * self.window or num_full

    def __iter__(self) -> Iterator[ProblemBatch]:
        self._start_epoch()
        order = self._order()
        while self.num_batches_done < len(self):
            window, place = divmod(self.num_batches_done, self.window * self.repeats)
            number = window * self.window + place % self.window
            # counted before it is handed out: a checkpoint written after this batch's step then counts it
            self.num_batches_done += 1
            following = [self._batch(order, later) for later in range(number + 1, self._end_of_step(number))]
            yield ProblemBatch(self._batch(order, number), weight=self._weight(number), following=following)

    def _batch(self, order: Sequence[int], number: int) -> list[Problem]:
        start = number * self.batch_size
        return [self.problems[index] for index in order[start : start + self.batch_size]]

    def _weight(self, number: int) -> float:
        """What a batch counts in its step, by its problems of all processes; 1 is an equal share of a full window."""
        first = number // self.window * self.window
        num_of_step = self._num_problems(first, self._end_of_step(number))
        return self.window * self._num_problems(number, number + 1) / num_of_step if num_of_step else 1.0

    def _end_of_step(self, number: int) -> int:
        """The first batch after those that the trainer takes of this one's window."""
        return min((number // self.window + 1) * self.window, self._num_taken())

    def _num_problems(self, first: int, last: int) -> int:
        """Of all processes, in the batches from ``first`` up to ``last``."""
        global_batch = self.batch_size * self.world_size
        return min(last * global_batch, len(self.problems)) - min(first * global_batch, len(self.problems))

    def _num_taken(self) -> int:
        """Different batches that the trainer takes of an epoch."""
        return self._num_batches() if self.repeats > 1 else self._num_handed_out()

    def _num_handed_out(self) -> int:
        """Batches that the trainer takes of an epoch, repeated ones included."""
        return min(self.limit if isinstance(self.limit, int) else int(len(self) * self.limit), len(self))

    def _start_epoch(self) -> None:
        """Begin the next epoch, or resume the one that a checkpoint was in the middle of."""
        goes_on = self._is_resumed and 0 < self.num_batches_done < self._num_handed_out()
        self._is_resumed = False
        if not goes_on:
            self.epoch += 1
            self.num_batches_done = 0

    def _order(self) -> list[int]:
        """This process's problems of the epoch: every ``world_size``-th of the global order."""
        if self.seed is None:
            return list(range(self.rank, len(self.problems), self.world_size))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        shuffled = torch.randperm(len(self.problems), generator=generator).tolist()
        return shuffled[self.rank :: self.world_size]

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands; the same on every process, since Lightning saves that of rank 0 for all."""
        return {"epoch": self.epoch, "num_batches_done": self.num_batches_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where ``state`` stood."""
        self.epoch = state["epoch"]
        self.num_batches_done = state["num_batches_done"]
        self._is_resumed = True
