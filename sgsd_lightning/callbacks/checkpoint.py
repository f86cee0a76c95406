"""Checkpoints of a run: a rolling one while training, and always one of the last step."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which otherwise forgets the steps after the last multiple of its interval.

    Args:
        dirpath: the folder; None takes ``checkpoints`` in the run folder.
        every_n_train_steps: optimizer steps between two checkpoints.
        monitor: a logged metric that says which checkpoints are best; None keeps the newest.
        mode: whether the metric is to be large (``max``) or small (``min``).
        save_top_k: how many to keep beside ``last.ckpt``.
    """

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
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step, while the loops still stand where a resumed run takes them up."""
        super().on_train_end(trainer, pl_module)
        if (
            self._last_global_step_saved != trainer.global_step
            and self.dirpath is not None
            and not getattr(trainer, "fast_dev_run", False)
        ):
            trainer.save_checkpoint(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
            self._last_global_step_saved = trainer.global_step
