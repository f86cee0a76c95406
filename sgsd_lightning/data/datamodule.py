"""The DataModule: problems in, batches of problems out, in an order that depends on the seed alone."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule

from sgsd_lightning.data.loader import ProblemLoader
from sgsd_lightning.data.sources import ProblemSource
from sgsd_lightning.types import Problem
from sgsd_lightning.types.arguments import require_choice

log = logging.getLogger(__name__)

UnusableProblems = Literal["refuse", "drop"]
TrainedProblems = Literal["keep", "drop", "refuse"]


class ProblemDataModule(LightningDataModule):
    """Problems to train on, to validate on and to test on.

    Args:
        train: the training problems.
        validation: the problems of ``sgsd validate`` and of validation while training.
        test: the problems of ``sgsd test`` and ``sgsd predict``; None takes those of validation.
        batch_size: problems in one training batch of one process; each gives a group of rollouts.
        evaluation_batch_size: problems in one batch of evaluation.
        seed: what the order of the training problems derives from.
        drop_last: leave out the end of an epoch that does not fill an optimizer step (``batch_size`` x processes x
            ``trainer.accumulate_grad_batches`` problems), so that every step is the mean over as many rollouts. An
            epoch that fills no step at all is one smaller step. Off trains on the end too, in a smaller step.
        updates_per_batch: how often the problems of an optimizer step are handed out in a row, for a module that takes
            as many steps on their rollouts; must be its number.
        unusable_problems: what becomes of problems whose answers the verifier cannot compare with, that stand twice
            with different answers, or, in training, whose LaTeX lost its backslashes: ``refuse`` stops before the model
            is loaded and lists the first five, ``drop`` leaves them out with a warning.
        trained_problems: what becomes of evaluation problems whose text is among the training problems, spaces aside:
            ``keep`` takes them as they are, ``drop`` leaves them out and says how many, ``refuse`` stops.
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
        unusable_problems: UnusableProblems = "refuse",
        trained_problems: TrainedProblems = "keep",
    ) -> None:
        super().__init__()
        require_choice(UnusableProblems, "data.unusable_problems", unusable_problems)
        require_choice(TrainedProblems, "data.trained_problems", trained_problems)
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
        self.unusable_problems: UnusableProblems = unusable_problems
        self.trained_problems: TrainedProblems = trained_problems
        self.problems: dict[str, list[Problem]] = {}

    def setup(self, stage: str) -> None:
        """Read what the stage needs, so that a bad file stops the run before a model is loaded."""
        needed = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        for split in needed:
            source = self.sources[split]
            if split not in self.problems and source is not None:
                problems = source.load()
                self.problems[split] = problems if split == "train" else self._held_out(split, source, problems)
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
            limit=self.trainer.limit_train_batches if self.trainer else 1.0,
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

    def _held_out(self, split: str, source: ProblemSource, problems: list[Problem]) -> list[Problem]:
        """The problems of an evaluation split without those that are trained on, if these are not kept."""
        train = self.sources["train"]
        if train is None or train is source:
            return problems
        source.refuse_if_same(train)
        if self.trained_problems == "keep":
            return problems
        trained = {_plain(problem) for problem in self.problems.get("train") or train.load()}
        kept = [problem for problem in problems if _plain(problem) not in trained]
        if len(kept) == len(problems):
            return problems
        told = f"{len(problems) - len(kept)} of {len(problems)} {split} problems are among the training problems"
        if self.trained_problems == "refuse" or not kept:
            first = next(problem for problem in problems if _plain(problem) in trained)
            raise ValueError(
                f"{told}, such as {first.problem_id}: take others, or set data.init_args.trained_problems to keep"
                + (" or drop" if kept else "")
            )
        log.warning("dropped what is trained on: %s", told)
        return kept

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
        num_micro_batches = self.trainer.accumulate_grad_batches if self.trainer else 1
        num_of_step = self.batch_size * world_size * num_micro_batches
        if problems is not None and self.updates_per_batch > 1 and len(problems) < num_of_step:
            raise ValueError(
                f"data.updates_per_batch {self.updates_per_batch} needs at least one full optimizer step of "
                f"data.batch_size {self.batch_size} x {world_size} processes x trainer.accumulate_grad_batches "
                f"{num_micro_batches} = {num_of_step} training problems; there are {len(problems)}"
            )


def _plain(problem: Problem) -> str:
    return " ".join(problem.text.split())
