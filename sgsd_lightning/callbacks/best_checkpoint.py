"""The checkpoint of the best evaluation, kept beside the ones that a run resumes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from sgsd_lightning.callbacks.checkpoint import write_whole_files
from sgsd_lightning.checkpoints.choice import BEST_FILENAME
from sgsd_lightning.checkpoints.folders import recovered
from sgsd_lightning.checkpoints.reading import load_unsharded_part
from sgsd_lightning.distributed.processes import broadcast_from_first
from sgsd_lightning.training.run_callback import RunCallback, StepPhase
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types.arguments import require_choice

log = logging.getLogger(__name__)

FILENAME = BEST_FILENAME
Mode = Literal["max", "min"]


class BestCheckpoint(RunCallback, Checkpoint):
    """Writes ``best.ckpt`` after every evaluation that is better than all before; the earlier of equal ones stays.

    It is a whole checkpoint, which a run can resume like any other (``--ckpt_path best``). A run without
    validation has none. An evaluation between two micro-batches of an optimizer step cannot be kept and does not count.

    Not Lightning's ModelCheckpoint, which may put a save off to another step than that of the metric, and loses what
    it knew of the best where a run resumes a checkpoint that was written before the evaluation: here the file
    itself says how good it is.

    Args:
        dirpath: the folder; None takes ``checkpoints`` in the run folder.
        metric: what an evaluation logs that says how good it is; None keeps no best checkpoint.
        mode: whether the metric is to be large (``max``) or small (``min``).
    """

    phase = StepPhase.SAVE

    def __init__(self, dirpath: str | None = None, metric: str | None = "val/avg@k", mode: Mode = "max") -> None:
        require_choice(Mode, "best_checkpoint.mode", mode)
        self.dirpath = dirpath
        self.metric = metric
        self.mode = mode
        self.score: float | None = None
        """Of ``best.ckpt``; None as long as there is none."""
        self.step = 0
        """The optimizer step of ``best.ckpt``."""
        self._is_within_step = False
        self._has_warned = False

    @property
    def best_model_path(self) -> str:
        """Where it is, as Lightning asks for it under ``ckpt_path="best"``; empty as long as there is none."""
        return "" if self.score is None else str(self._path)

    @property
    def _path(self) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath) / FILENAME

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = trainer.strategy.broadcast(self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints"))
        write_whole_files(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._is_within_step = True

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self._is_within_step = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this evaluation if it is the best.

        Raises:
            ValueError: where the evaluation logs no such metric.
            OSError: where the checkpoint cannot be written.
        """
        if self.metric is None or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if getattr(trainer, "fast_dev_run", False):
            return
        if self._is_within_step:
            self._warn_of_split_steps(trainer)
            return
        if self.metric not in trainer.callback_metrics:
            names = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise ValueError(f"best_checkpoint.metric {self.metric} is not logged by an evaluation; there are {names}")
        score = float(trainer.callback_metrics[self.metric])  # the same on every process
        if not self._is_better(score):
            return
        # set before saving, since it is part of the checkpoint
        self.score, self.step = score, trainer.global_step
        trainer.save_checkpoint(self._path, weights_only=False)

    def description(self) -> str | None:
        """Where the best checkpoint is, and how good; None as long as there is none."""
        return None if self.score is None else f"{self._path} ({self.metric} {self.score:.3g}, step {self.step})"

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "score": self.score, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What ``best.ckpt`` says of itself: it may be of a later evaluation than the resumed checkpoint.

        Steps that are taken again come to the same evaluations, and the earlier of equal ones stays.
        """
        own = broadcast_from_first(self._saved_state())
        if own is not None and own["metric"] == self.metric and own["score"] is not None:
            self.score, self.step = own["score"], own["step"]

    def _saved_state(self) -> dict[str, Any] | None:
        path = recovered(self._path)
        if not path.exists():
            return None
        state: dict[str, Any] | None = load_unsharded_part(path).get("callbacks", {}).get(self.state_key)
        return state

    def _is_better(self, score: float) -> bool:
        """A NaN is not."""
        if self.score is None:
            return score == score
        return score > self.score if self.mode == "max" else score < self.score

    def _warn_of_split_steps(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not self._has_warned:
            log.warning(
                "an evaluation in the middle of an optimizer step (step %d) cannot become %s; make val_check_interval, "
                "which counts micro-batches, a multiple of accumulate_grad_batches",
                trainer.global_step + 1,
                FILENAME,
            )
        self._has_warned = True
