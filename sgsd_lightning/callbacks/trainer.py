"""Lightning's Trainer with what the command line gives every run, for runs that start from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import pytorch as lightning
from lightning.pytorch import Callback

from sgsd_lightning.callbacks.best_checkpoint import BestCheckpoint
from sgsd_lightning.callbacks.checkpoint import RunCheckpoint
from sgsd_lightning.callbacks.defaults import TRAINER_DEFAULTS, default_callbacks, with_progress
from sgsd_lightning.callbacks.resume_guard import ResumeGuard
from sgsd_lightning.checkpoints.choice import BEST_FILENAME, LAST_FILENAME, checkpoint_of_new_fit, chosen_checkpoint
from sgsd_lightning.training.loggers import default_loggers
from sgsd_lightning.training.trainer_settings import told_in_one_sentence


class Trainer(lightning.Trainer):
    """Lightning's Trainer with our defaults: a run in one folder, its tables and logs, and every guard.

    As on the command line, ``fit`` refuses a folder that already holds a run, ``ckpt_path="last"`` and ``"best"`` name
    the run's own checkpoints, and a resume is refused when problems, bank or model changed. Settings are not compared:
    a run from Python has no configuration.

    Args:
        default_root_dir: the run folder.
        callbacks: added to the defaults; one of a default's class replaces it.
        logger: None and True write CSV and TensorBoard files into the run folder; False writes none.
        settings: Lightning's other arguments.

    Raises:
        ValueError: for an accelerator, devices, a strategy or a precision that are not there.
    """

    def __init__(
        self,
        *,
        default_root_dir: str | Path,
        callbacks: Callback | Sequence[Callback] | None = None,
        logger: Any = None,
        **settings: Any,
    ) -> None:
        run_folder = Path(default_root_dir).resolve()
        own = [callbacks] if isinstance(callbacks, Callback) else callbacks or []
        run_callbacks = default_callbacks(own)
        for callback in run_callbacks:
            if isinstance(callback, RunCheckpoint | BestCheckpoint):
                callback.dirpath = callback.dirpath or str(run_folder / "checkpoints")
        with told_in_one_sentence(settings):
            super().__init__(
                default_root_dir=run_folder,
                callbacks=with_progress(run_callbacks, settings.get("enable_progress_bar")),
                logger=default_loggers(run_folder) if logger in (None, True) else logger,
                **{**TRAINER_DEFAULTS, **settings},
            )

    def fit(
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Lightning's, from the checkpoint that ``ckpt_path`` names.

        Raises:
            FileExistsError: without ``ckpt_path``, if the run folder already holds a run.
            FileNotFoundError: if there is no such checkpoint.
        """
        folder = Path(self._one(RunCheckpoint).dirpath or self.default_root_dir)
        last, best = folder / LAST_FILENAME, Path(self._one(BestCheckpoint).dirpath or folder) / BEST_FILENAME
        if ckpt_path is None and not getattr(self, "fast_dev_run", False):
            origin = checkpoint_of_new_fit(Path(self.default_root_dir), last)
        else:
            origin = chosen_checkpoint(None if ckpt_path is None else str(ckpt_path), last, best)
        self._one(RunCheckpoint).origin = self._one(ResumeGuard).origin = origin
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, origin, weights_only)

    def _one(self, kind: type[Any]) -> Any:
        return next(callback for callback in self.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]
