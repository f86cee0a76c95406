"""What a step says of its costs: every phase is timed, tokens are those that ran, operations as torch counts them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from sgsd_lightning.callbacks import RunStatistics
from sgsd_lightning.data import ProblemDataModule, ProblemSource
from sgsd_lightning.training import RunCallback, StepReport
from sgsd_lightning.types import Problem
from tests.support.tiny import PROBLEMS, tiny_module, tiny_policy

PHASES = ("rollout", "verify", "contexts", "teachers", "student_forward", "objective", "backward", "optimizer")


class Four(ProblemSource):
    def load(self) -> list[Problem]:
        return PROBLEMS[:4]


class Witness(RunCallback):
    """Counts for itself, with what torch counts."""

    def __init__(self) -> None:
        self.num_sampled = 0
        self.flops = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.counter = FlopCounterMode(display=False)
        self.counter.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.counter.__exit__(None, None, None)
        self.flops += self.counter.get_total_flops()

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        rollouts = [judged.rollout for step in report.learner_steps for judged in step.record.judged]
        self.num_sampled += sum(len(rollout.completion_ids) for rollout in rollouts)


def test_a_step_reports_phases_tokens_and_operations(tmp_path: Path) -> None:
    witness = Witness()
    # a wide model, whose matrices are nearly all that is computed
    policy = tiny_policy(hidden_size=128, intermediate_size=512, tie_word_embeddings=False)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        accumulate_grad_batches=2,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[RunStatistics(), witness],
    )
    trainer.fit(tiny_module(policy=policy), datamodule=ProblemDataModule(train=Four(), batch_size=2))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    times = [metrics[f"time/{phase}_ms"] for phase in PHASES]
    assert all(milliseconds > 0 for milliseconds in times)
    # the last forward pass is inside the step; what is outside of the phases is little
    assert 0.5 * metrics["time/step_ms"] < sum(times) <= metrics["time/step_ms"]
    assert metrics["tokens/rollout"] == witness.num_sampled
    assert metrics["tokens/padding_frac"] == 0
    assert metrics["tokens/teachers"] > metrics["tokens/student"] > metrics["tokens/rollout"]
    counted = metrics["time/model_tflop_per_s"] * 1e12 * metrics["time/step_ms"] / 1000
    assert counted == pytest.approx(witness.flops, rel=0.2)
    assert "time/model_flop_utilisation" not in metrics


def test_peak_memory_on_a_gpu_is_counted_anew_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(batch_idx))
    trainer = SimpleNamespace(accumulate_grad_batches=2)
    for batch_idx in range(5):
        RunStatistics().on_train_batch_start(trainer, None, None, batch_idx)  # type: ignore[arg-type]
    assert resets == [0, 2, 4]
