"""How far a run is, in one line: drawn in place on a terminal, a line now and then in a file."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport

SHORT_NAMES = {
    "objective/loss": "loss",
    "rollout/reward_mean": "reward",
    "objective/helpful_frac": "helpful",
    "val/avg@k": "avg@k",
}
"""Of the metrics that are logged for the progress bar, in the order in which they are shown."""
CLEAR_LINE = "\r\x1b[K"
SECONDS_BETWEEN_LINES = 30.0


class ProgressLine(RunCallback, ProgressBar):
    """Lightning's progress bar as one line: the step, what was logged with ``prog_bar=True``, the time left.

    On a terminal the line is drawn in place, never wider than the window. Anywhere else it is printed for the first and
    the last step, after every evaluation, and otherwise every half minute.

    Args:
        clock: seconds from some fixed moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._is_enabled = True
        self._is_drawn = False
        self._shown: dict[str, float] = {}
        self._first_step = 0
        self._start = self._last_line = -math.inf

    def enable(self) -> None:
        self._is_enabled = True

    def disable(self) -> None:
        self._is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print beside the line, which is drawn again with the next step."""
        self._clear()
        if self._is_enabled:
            print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step, self._start, self._last_line = trainer.global_step, self._clock(), -math.inf
        self._shown = {}
        if _is_terminal():
            self._draw(self._text(trainer))

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self._show_step(trainer, is_due=trainer.global_step == total_steps(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _is_fitting(trainer):
            self._last_line = self._clock()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.has_dataloader_changed(dataloader_idx)
        if not trainer.sanity_checking:
            during = f"{self._step(trainer)}  evaluating" if _is_fitting(trainer) else "validate"
            self._show_batch(during, batch_idx, self.total_val_batches_current_dataloader)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _is_fitting(trainer) and not trainer.sanity_checking:
            self._show_step(trainer, is_due=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_line = self._clock()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.has_dataloader_changed(dataloader_idx)
        self._show_batch("test", batch_idx, self.total_test_batches_current_dataloader)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_line = self._clock()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.has_dataloader_changed(dataloader_idx)
        self._show_batch("predict", batch_idx, self.total_predict_batches_current_dataloader)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last line where it stands."""
        if self._is_drawn:
            self._write(f"{CLEAR_LINE}{self._text(trainer)}\n")
            self._is_drawn = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._clear()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._clear()

    def _show_step(self, trainer: Trainer, *, is_due: bool) -> None:
        self._shown.update({name: float(value) for name, value in trainer.progress_bar_metrics.items()})
        self._show(self._text(trainer), is_due=is_due)

    def _show_batch(self, what: str, batch: int, total: float) -> None:
        self._show(f"{what} {batch + 1}{f'/{total:.0f}' if math.isfinite(total) else ''}", is_due=False)

    def _show(self, text: str, *, is_due: bool) -> None:
        if _is_terminal():
            self._draw(text)
        elif self._is_enabled and (is_due or self._clock() - self._last_line >= SECONDS_BETWEEN_LINES):
            self._write(f"{text}\n")
            self._last_line = self._clock()

    def _text(self, trainer: Trainer) -> str:
        step, total = trainer.global_step, total_steps(trainer)
        done = step - self._first_step
        seconds = None
        if done > 0 and total is not None and total > step:
            seconds = (self._clock() - self._start) / done * (total - step)
        width = shutil.get_terminal_size().columns - 1 if _is_terminal() else None
        return progress_text(step, total, self._shown, seconds, width)

    def _step(self, trainer: Trainer) -> str:
        return progress_text(trainer.global_step, total_steps(trainer), {}, None, None)

    def _draw(self, text: str) -> None:
        """In place, and back to where the line begins, so that whatever is printed next overwrites it."""
        if self._is_enabled:
            self._write(f"{CLEAR_LINE}{text}\r")
            self._is_drawn = True

    def _clear(self) -> None:
        if self._is_drawn:
            self._write(CLEAR_LINE)
            self._is_drawn = False

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def progress_text(
    step: int, total: int | None, metrics: Mapping[str, float], seconds_left: float | None, width: int | None
) -> str:
    """Put the line together; what does not fit is left out from its end.

    Args:
        step: optimizer steps taken.
        total: those of the whole run; None if nobody knows.
        metrics: values by the names that they were logged under.
        seconds_left: until the end of the run; None where it is not known.
        width: characters there is room for; None for any number.
    """
    known = [name for name in SHORT_NAMES if name in metrics]
    others = [name for name in metrics if name not in SHORT_NAMES]
    parts = [f"step {step}" if total is None else f"step {step}/{total}"]
    parts += [f"{SHORT_NAMES.get(name) or name.rpartition('/')[2]} {metrics[name]:.3g}" for name in (*known, *others)]
    if seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(seconds_left))} left")
    line = "  ".join(parts)
    while width is not None and len(line) > width and len(parts) > 1:
        parts.pop()
        line = "  ".join(parts)
    return line if width is None else line[:width]


def total_steps(trainer: Trainer) -> int | None:
    """Return the optimizer steps of the run, by ``max_steps`` or ``max_epochs``; None where neither ends it."""
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    batches = trainer.num_training_batches
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and math.isfinite(batches):
        limits.append(trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    return min(limits, default=None)


def _is_fitting(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _is_terminal() -> bool:
    return sys.stdout.isatty()
