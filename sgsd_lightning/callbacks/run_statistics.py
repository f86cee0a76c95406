"""What a step costs: wall time by phase, tokens and operations per second, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.metrics.measurements import Largest, Measurement, Total, combine
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.planning.devices import peak_flops_per_second
from sgsd_lightning.planning.flops import (
    generation_flops,
    model_flop_utilisation,
    scoring_flops,
    training_flops,
)
from sgsd_lightning.planning.model_shape import ModelShape, model_shape
from sgsd_lightning.scoring.token_count import TokenCount
from sgsd_lightning.training.learner import LearnerStep
from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport


class RunStatistics(RunCallback):
    """Logs, once per optimizer step and over all processes:

    ``time/<phase>_ms`` and ``time/step_ms`` of the slowest process, ``time/completion_tokens_per_s``,
    ``time/model_tflop_per_s`` (operations that the mathematics needs, see `sgsd_lightning.planning.flops`),
    ``time/model_flop_utilisation`` where the GPU's peak is known, and ``memory/peak_gib``: on a GPU the most that
    tensors held in the step, on a CPU the most that the process has held so far.
    """

    def __init__(self) -> None:
        self._shape: ModelShape | None = None
        self._peak_flops: float | None = None
        self._step_start = time.perf_counter()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SelfDistillation)
        try:
            self._shape = model_shape(pl_module.model)
        except ValueError:
            self._shape = None  # an architecture whose operations are not counted
        if torch.cuda.is_available():
            self._peak_flops = peak_flops_per_second(torch.cuda.get_device_name())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._step_start = time.perf_counter()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        for name, value in self._statistics(trainer, report).items():
            module.log(name, value, batch_size=1)

    def _statistics(self, trainer: Trainer, report: StepReport) -> dict[str, float]:
        steps = report.learner_steps
        num_tokens = sum(completion for step in steps for _, completion in step.sampled_lengths)
        flops = 0.0 if self._shape is None else sum(model_flops(self._shape, step) for step in steps)
        measured: dict[str, Measurement] = {
            **{name: Largest(value) for name, value in report.timer.take().items()},
            "time/step_ms": Largest(1000 * (time.perf_counter() - self._step_start)),
            "time/completion_tokens_per_s": Total(float(num_tokens)),
            "time/model_tflop_per_s": Total(flops / 1e12),
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


def model_flops(shape: ModelShape, step: LearnerStep) -> float:
    """Operations that a micro-batch needed on this process: sampling, teachers, student and backward pass."""
    counts = step.token_counts
    prompts, completions = zip(*step.sampled_lengths, strict=True) if step.sampled_lengths else ((), ())
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
    """The most memory held, in GiB: by tensors on the GPU in this step; without a GPU, by the process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
