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
from tests.support.runs import Run, data_of, tiny_run


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
    run = Run(module=lambda: {"teacher_weights": EmaTeacher(0.5)}, global_batch=4, num_problems=12)
    module, fitter, _ = tiny_run(run, world_size, folder, **settings)
    averages, passed = iter(scores), iter(passes or [1.0] * len(scores))
    take = module.sampled_evaluation.take

    def scripted() -> dict[str, float]:
        measured = take()
        return {**measured, "avg@k": next(averages), "pass@k": next(passed)}

    module.sampled_evaluation.take = scripted  # type: ignore[method-assign]
    data = data_of(run, world_size)
    fitter.fit(module, datamodule=data, ckpt_path=ckpt_path)
    module.sampled_evaluation.take = take  # type: ignore[method-assign]
    return module, fitter, data


def saved(path: Path) -> dict[str, Any]:
    """A checkpoint."""
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint
