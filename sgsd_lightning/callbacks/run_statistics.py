"""What a step costs: wall time by phase, tokens per second, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.module import SelfDistillation


class RunStatistics(Callback):
    """Logs ``time/<phase>_ms``, ``time/step_ms``, ``time/completion_tokens_per_s`` and ``memory/peak_gib`` a step."""

    def __init__(self) -> None:
        self._step_start = time.perf_counter()
        self._num_tokens = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._step_start = time.perf_counter()
            self._num_tokens = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SelfDistillation)
        if pl_module.step_record is not None:
            self._num_tokens += sum(len(rollout.completion_ids) for rollout in pl_module.step_record.rollouts)
        if not pl_module.is_step_complete(batch_idx):
            return
        seconds = time.perf_counter() - self._step_start
        statistics = {
            **pl_module.timer.take(),
            "time/step_ms": 1000 * seconds,
            "time/completion_tokens_per_s": self._num_tokens / seconds,
            "memory/peak_gib": peak_memory_gib(),
        }
        for name, value in statistics.items():
            pl_module.log(name, value, batch_size=1)


def peak_memory_gib() -> float:
    """The most memory held so far, in GiB: on the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
