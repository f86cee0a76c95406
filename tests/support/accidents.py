"""What happens to a run, at a chosen moment: a callback that the tests name in the configuration."""

from __future__ import annotations

import io
import os
import resource
import signal
from typing import IO, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

SMALL_FILE_BYTES = 100_000


class Accident(Callback):
    """Reads ``SGSD_TEST_ACCIDENT``, ``<what>@<micro-batch>[/<rank>]``, counting micro-batches of this process from 1.

    It happens once the micro-batch is over, before a checkpoint of its step is written; ``nan`` befalls its loss, and
    ``evaluate`` is a signal in the evaluation that follows.
    """

    def __init__(self) -> None:
        self.what, _, when = os.environ.get("SGSD_TEST_ACCIDENT", "").partition("@")
        moment, _, rank = when.partition("/")
        self.moment = int(moment or 0)
        self.rank = int(rank) if rank else None
        self.num_batches = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._is_due(trainer, self.num_batches + 1) and self.what == "nan":
            step = pl_module.training_step

            def poisoned(*arguments: Any) -> Any:
                pl_module.training_step = step  # type: ignore[method-assign]
                return step(*arguments) * float("nan")

            pl_module.training_step = poisoned  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.num_batches += 1
        if self._is_due(trainer, self.num_batches):
            act = getattr(self, f"_{self.what}", None)
            if act is not None:
                act()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self.what == "evaluate" and self._is_due(trainer, self.num_batches):
            self._terminate()

    def _is_due(self, trainer: Trainer, moment: int) -> bool:
        return self.moment == moment and self.rank in (None, trainer.global_rank)

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def _interrupt(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def _fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, SMALL_FILE_BYTES))

    def _tear(self) -> None:
        """Die in the middle of writing the next checkpoint that is called ``last``."""
        save = torch.save

        def half(content: Any, file: IO[bytes]) -> None:
            if "last.ckpt" not in str(getattr(file, "name", "")):
                save(content, file)
                return
            whole = io.BytesIO()
            save(content, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half
