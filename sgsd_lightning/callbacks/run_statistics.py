"""What a step costs: wall time by phase, tokens and operations per second, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.metrics.measurements import Largest, Measurement, Total, combine
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.planning.devices import peak_flops_per_second
from sgsd_lightning.planning.flops import (
    generation_flops,
    model_flop_utilisation,
    scoring_flops,
    training_flops,
)
from sgsd_lightning.planning.model_shape import ModelShape, shape_of
from sgsd_lightning.scoring.token_count import TokenCount


class RunStatistics(Callback):
    """Logs, once an optimizer step and over all processes:

    ``time/<phase>_ms`` and ``time/step_ms`` of the slowest process, ``time/completion_tokens_per_s``,
    ``time/model_tflop_per_s`` (operations that the mathematics needs, see `sgsd_lightning.planning.flops`),
    ``time/model_flop_utilisation`` where the GPU's peak is known, and ``memory/peak_gib``.
    """

    def __init__(self) -> None:
        self._shape: ModelShape | None = None
        self._peak_flops: float | None = None
        self._step_start = time.perf_counter()
        self._num_tokens = 0
        self._flops = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SelfDistillation)
        try:
            self._shape = shape_of(pl_module.model)
        except ValueError:
            self._shape = None  # an architecture whose operations are not counted
        if torch.cuda.is_available():
            self._peak_flops = peak_flops_per_second(torch.cuda.get_device_name())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._step_start = time.perf_counter()
            self._num_tokens = 0
            self._flops = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SelfDistillation)
        self._num_tokens += sum(completion for _, completion in pl_module.sampled_lengths)
        if self._shape is not None:
            self._flops += model_flops(self._shape, pl_module)
        if not pl_module.is_step_complete(batch_idx):
            return
        for name, value in self._statistics(trainer, pl_module).items():
            pl_module.log(name, value, batch_size=1)

    def _statistics(self, trainer: Trainer, pl_module: SelfDistillation) -> dict[str, float]:
        measured: dict[str, Measurement] = {
            **{name: Largest(value) for name, value in pl_module.timer.take().items()},
            "time/step_ms": Largest(1000 * (time.perf_counter() - self._step_start)),
            "time/completion_tokens_per_s": Total(float(self._num_tokens)),
            "time/model_tflop_per_s": Total(self._flops / 1e12),
            "memory/peak_gib": Largest(peak_memory_gib()),
        }
        statistics = combine([measured])
        seconds = statistics["time/step_ms"] / 1000
        utilisation = model_flop_utilisation(
            1e12 * statistics["time/model_tflop_per_s"], seconds, trainer.world_size, self._peak_flops
        )
        for name in ("time/completion_tokens_per_s", "time/model_tflop_per_s"):
            statistics[name] /= seconds
        if utilisation is not None:
            statistics["time/model_flop_utilisation"] = utilisation
        return statistics


def model_flops(shape: ModelShape, module: SelfDistillation) -> float:
    """Operations that the last micro-batch needed on this process: sampling, teachers, student and backward pass."""
    counts = module.scorer.token_counts
    prompts, completions = zip(*module.sampled_lengths, strict=True) if module.sampled_lengths else ((), ())
    sampling = generation_flops(shape, prompts, completions).model
    teachers = counts.get("teachers", TokenCount())
    student = counts.get("student", TokenCount())
    return (
        sampling
        + _share_run(teachers) * scoring_flops(shape, teachers.lengths, teachers.num_predicted).model
        + _share_run(student) * training_flops(shape, student.lengths, student.num_predicted).model
    )


def _share_run(count: TokenCount) -> float:
    """A prompt that completions share runs once; its operations are taken off in proportion to its tokens."""
    total = sum(count.lengths)
    return (count.num_run - count.num_padded) / total if total else 0.0


def peak_memory_gib() -> float:
    """The most memory held so far, in GiB: on the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
