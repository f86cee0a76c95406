"""Stop on a signal: finish the optimizer step, write ``last.ckpt``, print the resume command."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.callbacks.checkpoint import RunCheckpoint
from sgsd_lightning.distributed.processes import largest_over_processes
from sgsd_lightning.training.run_callback import RunCallback, StepPhase
from sgsd_lightning.training.step_report import StepReport

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")


class StoppedBySignal(SystemExit):
    """Ends the process with 128 + the signal's number, as a shell reports it, so that `sgsd fit && …` ends there.

    Processes other than the first end with 0: the launcher takes any other status for a crash.
    """


class Preemption(RunCallback):
    """On SIGTERM, SIGUSR1 (SLURM's warning) or Ctrl-C: finish the optimizer step, save ``last.ckpt`` and exit.

    A signal to one process stops them all after the same step. A second Ctrl-C interrupts at once. Where Lightning
    re-queues a SLURM job, SIGUSR1 stays with it. Lightning's own handler of SIGTERM is replaced while training: it
    saves nothing, and talks to the other processes in the middle of whatever they are doing. An evaluation that was due
    after the step, or under way, is left out; a resumed run begins with the next step.

    Args:
        enabled: off leaves the signals as they are.
    """

    phase = StepPhase.STOP

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._signal = 0
        self._is_stopping = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled or threading.current_thread() is not threading.main_thread():
            return
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGUSR1" and signal.getsignal(number) != signal.SIG_DFL):
                continue
            self._previous[number] = signal.signal(number, self._handler(trainer.is_global_zero))

    def _handler(self, speaks: bool) -> Callable[[int, FrameType | None], None]:
        def note(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self._signal == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = number
            if speaks:
                again = " (again: at once)" if number == signal.SIGINT else ""
                _say(f"{signal.Signals(number).name}: stopping after this optimizer step{again}")

        return note

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        if not self.enabled or not self._is_stop_agreed(module):
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.save_last_step(trainer)
        self._is_stopping = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Not before the step was logged, which is after the callbacks' last hook of it."""
        if self._is_stopping:
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_stopping:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """A stop in the middle of an evaluation does not wait for its end; the newest checkpoint stands."""
        if self._previous and not trainer.sanity_checking and self._is_stop_agreed(pl_module):
            self._stop(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _is_stop_agreed(self, pl_module: LightningModule) -> bool:
        self._signal = int(largest_over_processes(float(self._signal), pl_module.device))
        return self._signal != 0

    def _stop(self, trainer: Trainer) -> None:
        safe = [c.resume_hint(trainer) for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
        if trainer.is_global_zero:
            name = signal.Signals(self._signal).name
            _say(f"stopped by {name} after step {trainer.global_step}. {'. '.join(filter(None, safe))}")
        raise StoppedBySignal(128 + self._signal if trainer.is_global_zero else 0)


def _say(message: str) -> None:
    print(f"sgsd: {message}", file=sys.stderr, flush=True)
