"""Tiny runs whose evaluations come out as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.policy import EmaTeacher
from sgsd_lightning.training import SampledEvaluation
from tests.support.runs import Run, data_of, tiny_run


class ScriptedEvaluation(SampledEvaluation):
    """Counts as any other, and comes to what it was told."""

    def __init__(self, group_size: int, scores: Sequence[float], passes: Sequence[float]) -> None:
        super().__init__(group_size)
        self.averages, self.passes = iter(scores), iter(passes)

    def take(self) -> dict[str, float]:
        return {**super().take(), "avg@k": next(self.averages), "pass@k": next(self.passes)}


def fit(
    folder: Path,
    scores: Sequence[float],
    callbacks: Sequence[Callback],
    passes: Sequence[float] = (),
    world_size: int = 1,
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> tuple[SelfDistillation, Trainer, ProblemDataModule]:
    """Train, with an evaluation after every micro-batch: the next of ``scores`` is its avg@k, of ``passes`` its pass@k.

    Three steps an epoch; an EMA teacher; as many steps as there are scores unless ``max_steps`` says otherwise.
    """
    settings = {
        "max_steps": len(scores),
        "limit_val_batches": 1,
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "enable_checkpointing": True,
        "callbacks": list(callbacks),
        **trainer,
    }
    run = Run(module=lambda: {"teacher_weights": EmaTeacher(0.5)}, global_batch=4, num_problems=12, drop_last=False)
    module, fitter, _ = tiny_run(run, world_size, folder, **settings)
    measured = module.sampled_evaluation
    module.sampled_evaluation = ScriptedEvaluation(measured.group_size, scores, passes or [1.0] * len(scores))
    data = data_of(run, world_size)
    fitter.fit(module, datamodule=data, ckpt_path=ckpt_path)
    module.sampled_evaluation = measured.to(module.device)
    return module, fitter, data


def saved(path: Path) -> dict[str, Any]:
    """A checkpoint."""
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint
