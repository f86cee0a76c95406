"""The DataModule: problems in, batches of problems out, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from sgsd_lightning.data.sources import ProblemSource
from sgsd_lightning.types import MicroBatch, Problem


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
        drop_last: leave out the end of an epoch that does not fill a global batch.
        repeats: how often a window of batches is handed out in a row, before the next one.
        window: batches in a window, each of which names the problems that follow in it. With repeats, an end of an
            epoch that does not fill a window is left out.
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
    ) -> None:
        self.problems = problems
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.drop_last = drop_last
        self.repeats = repeats
        self.window = window
        self.epoch = -1
        self.num_batches_done = 0
        self._is_resumed = False

    def __len__(self) -> int:
        if self.repeats == 1:
            return self._num_batches()
        return self._num_batches() // self.window * self.window * self.repeats

    def _num_batches(self) -> int:
        """Different ones in an epoch."""
        global_batch = self.batch_size * self.world_size
        if self.drop_last:
            return len(self.problems) // global_batch
        return -(-len(self.problems) // global_batch)

    def __iter__(self) -> Iterator[MicroBatch]:
        self._start_epoch()
        order = self._order()
        while self.num_batches_done < len(self):
            window, place = divmod(self.num_batches_done, self.window * self.repeats)
            first = window * self.window + place % self.window
            end = min((window + 1) * self.window, self._num_batches())
            own, *following = [self._batch(order, index) for index in range(first, end)]
            # counted before it is handed out: a checkpoint written after this batch's step then counts it
            self.num_batches_done += 1
            yield MicroBatch(own, following)

    def _batch(self, order: Sequence[int], index: int) -> list[Problem]:
        start = index * self.batch_size
        return [self.problems[place] for place in order[start : start + self.batch_size]]

    def _start_epoch(self) -> None:
        """Begin the next epoch, or resume the one that a checkpoint was in the middle of."""
        goes_on = self._is_resumed and 0 < self.num_batches_done < len(self)
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


class ProblemDataModule(LightningDataModule):
    """Problems to train on, to validate on and to test on.

    Args:
        train: the training problems.
        validation: the problems of ``sgsd validate`` and of validation while training.
        test: the problems of ``sgsd test`` and ``sgsd predict``; None takes those of validation.
        batch_size: problems in one training batch of one process; each gives a group of rollouts.
        evaluation_batch_size: problems in one batch of evaluation.
        seed: what the order of the training problems derives from.
        drop_last: leave out the end of an epoch that does not fill a batch of every process, so that every optimizer
            step is the mean over as many rollouts. Off trains on it too, in a smaller batch.
        updates_per_batch: how often the problems of an optimizer step are handed out in a row, for a module that takes
            as many steps on their rollouts; must be its number.
    """

    def __init__(
        self,
        train: ProblemSource | None = None,
        validation: ProblemSource | None = None,
        test: ProblemSource | None = None,
        batch_size: int = 4,
        evaluation_batch_size: int = 16,
        seed: int = 0,
        drop_last: bool = True,
        updates_per_batch: int = 1,
    ) -> None:
        super().__init__()
        at_least_one = {
            "batch_size": batch_size,
            "evaluation_batch_size": evaluation_batch_size,
            "updates_per_batch": updates_per_batch,
        }
        for name, value in at_least_one.items():
            if value < 1:
                raise ValueError(f"data.{name} must be at least 1; got {value}")
        self.sources = {"train": train, "validation": validation, "test": test or validation}
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.updates_per_batch = updates_per_batch
        self.problems: dict[str, list[Problem]] = {}

    def setup(self, stage: str) -> None:
        """Read what the stage needs, so that a bad file stops the run before a model is loaded."""
        needed = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        for split in needed:
            source = self.sources[split]
            if split not in self.problems and source is not None:
                self.problems[split] = source.load()
        if needed[0] not in self.problems:
            raise ValueError(f"sgsd {stage} needs problems: data.init_args.{needed[0]} is not set")
        self._check_batch_size()

    def transfer_batch_to_device(
        self, batch: list[Problem], device: torch.device, dataloader_idx: int
    ) -> list[Problem]:
        """Problems hold no tensors."""
        return batch

    def keep(self, split: str, problems: list[Problem]) -> None:
        """Replace the problems of a split, after some were dropped."""
        self.problems[split] = problems
        self._check_batch_size()

    def train_dataloader(self) -> ProblemLoader:
        """Shuffled by (seed, epoch)."""
        rank, world_size = self._rank()
        return ProblemLoader(
            self.problems["train"],
            self.batch_size,
            rank=rank,
            world_size=world_size,
            seed=self.seed,
            drop_last=self.drop_last,
            repeats=self.updates_per_batch,
            window=self.trainer.accumulate_grad_batches if self.trainer else 1,
        )

    def val_dataloader(self) -> ProblemLoader | list[Any]:
        """In the order of the source; empty where no validation problems are set."""
        return self._evaluation_loader("validation") if "validation" in self.problems else []

    def test_dataloader(self) -> ProblemLoader:
        """In the order of the source."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> ProblemLoader:
        """The test problems."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> ProblemLoader:
        rank, world_size = self._rank()
        return ProblemLoader(self.problems[split], self.evaluation_batch_size, rank=rank, world_size=world_size)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _check_batch_size(self) -> None:
        world_size = self._rank()[1]
        problems = self.problems.get("train")
        if problems is not None and self.drop_last and len(problems) < self.batch_size * world_size:
            raise ValueError(
                f"data.batch_size {self.batch_size} x {world_size} processes needs at least "
                f"{self.batch_size * world_size} training problems; there are {len(problems)} (or take data.drop_last: "
                "false)"
            )
