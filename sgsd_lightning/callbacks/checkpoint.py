"""Checkpoints of a run: a rolling one while training, always one of the last step, and what is safe when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from sgsd_lightning.checkpoints.files import WholeFileCheckpoints, copy_checkpoint, remove_partial
from sgsd_lightning.training.run_callback import RunCallback, StepPhase
from sgsd_lightning.training.step_report import StepReport

RESUME = "resume it with --ckpt_path last"


class RunCheckpoint(RunCallback, ModelCheckpoint):
    """Lightning's ModelCheckpoint, which writes only between optimizer steps, and always at the last one.

    Before an evaluation in the middle of training, which may take longer than many steps, it writes ``last.ckpt`` too,
    and again after one that makes a callback stop the run, so that the decision is in it.
    In the middle of gradient accumulation Lightning's would save a data position whose gradients are not in the
    checkpoint. Files are written beside their place and renamed (:class:`WholeFileCheckpoints`).

    Args:
        dirpath: the folder; None takes ``checkpoints`` in the run folder.
        every_n_train_steps: optimizer steps between two checkpoints.
        monitor: a logged metric that says which checkpoints are best; None keeps the newest.
        mode: whether the metric is to be large (``max``) or small (``min``).
        save_top_k: how many to keep beside ``last.ckpt``.
    """

    phase = StepPhase.SAVE

    def __init__(
        self,
        dirpath: str | None = None,
        every_n_train_steps: int = 25,
        monitor: str | None = None,
        mode: str = "max",
        save_top_k: int = 1,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step-{step}",
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_train_steps,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_last=True,
            enable_version_counter=False,
        )
        self.origin: str | None = None
        """The checkpoint that `fit` resumes, set by whoever calls `fit`: the trainer knows it once it is loaded."""
        self._is_within_step = False
        self._is_training = False
        self._num_saved = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        write_whole_files(trainer)
        if stage == "fit" and trainer.is_global_zero and self.dirpath is not None:
            remove_partial(Path(self.dirpath))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._is_training = True
        # otherwise the first micro-batch after a resume counts as a step to save
        self._last_global_step_saved = trainer.global_step
        _begin_next_epoch(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._is_within_step = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Nothing: Lightning's own hook runs before the step is handed over, and is called from there."""

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self._is_within_step = False
        super().on_train_batch_end(trainer, module, None, None, trainer.fit_loop.epoch_loop.batch_idx)
        if _evaluation_follows(trainer) or _is_ending(trainer):
            self.save_last_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_within_step:
            return
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and _is_ending(trainer):
            self.save_last_step(trainer, again=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step, while the loops still stand where a resumed run takes them up."""
        self.save_last_step(trainer)

    def save_last_step(self, trainer: Trainer, again: bool = False) -> Path | None:
        """Write ``last.ckpt`` if it is not of this step already. All processes must call this, between two steps.

        Args:
            trainer: the run's.
            again: write it even so, with what callbacks have learned since.

        Returns:
            where it is; None if the run keeps no checkpoints.
        """
        if self.dirpath is None or getattr(trainer, "fast_dev_run", False):
            return None
        path = Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        if again or self._last_global_step_saved != trainer.global_step:
            # set before saving, since it is part of the checkpoint
            self.last_model_path = str(path)
            self._save_checkpoint(trainer, str(path))
        return path

    def replace_last(self, trainer: Trainer, source: Path) -> None:
        """Make ``last.ckpt`` a copy of another checkpoint, for good. All processes must call this.

        Raises:
            OSError: where it cannot be written.
        """
        assert self.dirpath is not None
        path = Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        if trainer.is_global_zero:
            copy_checkpoint(source, path)
        trainer.strategy.barrier("replaced last")
        # the step that it would be written at otherwise
        self._last_global_step_saved = trainer.global_step

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Add to the error which checkpoint can be resumed."""
        super().on_exception(trainer, pl_module, exception)
        safe = self.resume_hint(trainer)
        if safe is None or isinstance(exception, SystemExit):
            return
        if isinstance(exception, KeyboardInterrupt):  # Lightning ends the process without showing it
            if trainer.is_global_zero:
                print(f"sgsd: interrupted. {safe}", flush=True)
            return
        exception.add_note(safe)

    def resume_hint(self, trainer: Trainer) -> str | None:
        """A sentence on the newest complete checkpoint; None before training has begun in a run that is new."""
        if self._num_saved:
            return f"{self.last_model_path} of step {self._last_global_step_saved} is complete; {RESUME}"
        origin = trainer.ckpt_path or self.origin
        if origin and trainer.state.fn == TrainerFn.FITTING:
            return f"The checkpoint {origin}, which this run resumed, is untouched"
        return "No checkpoint was written yet" if self._is_training else None

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._num_saved += 1


def write_whole_files(trainer: Trainer) -> None:
    """Let the trainer write checkpoints that are files beside their place, unless somebody chose how to write them."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFileCheckpoints()


def _is_ending(trainer: Trainer) -> bool:
    """Whether a callback asked the trainer to stop, and it will."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early


def _evaluation_follows(trainer: Trainer) -> bool:
    """Whether the trainer validates next; by the clock, processes may differ, and then it is taken for no."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    by_the_clock = getattr(trainer, "_val_check_time_interval", None) is not None
    return not by_the_clock and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def _begin_next_epoch(trainer: Trainer) -> None:
    """Where a checkpoint was written after the last batch of an epoch, let the resumed run count the next one.

    Lightning takes it for a run in the middle of an epoch and does not count its beginning; a second resume then
    miscounts the epochs, and `max_epochs` lets one too many run. Where no evaluation follows, it also takes another
    batch of the epoch that has ended, and leaves the next one after it.
    """
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.total
    if loop.restarted_mid_epoch and epochs.processed == epochs.started:
        loop.reset_restart_stage()
    batches = loop.epoch_loop.batch_progress
    has_ended = batches.current.completed >= trainer.num_training_batches and batches.is_last_batch
    if loop.epoch_loop.restarting and has_ended and not _evaluation_follows(trainer):
        loop.epoch_loop.restarting = False
