"""Two processes are taken back to the best checkpoint together, whatever the strategy and the kind of checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.callbacks import BestCheckpoint, CollapseGuard, RunCheckpoint
from sgsd_lightning.checkpoints.reading import load_checkpoint
from sgsd_lightning.training.fsdp2 import FSDP2Strategy
from tests.support.runs import on_processes, whole
from tests.support.scripted_runs import fit

STRATEGIES = ("ddp", "fsdp2 folder", "fsdp2 file")


def strategy(name: str) -> Any:
    if name == "ddp":
        return "ddp"
    return FSDP2Strategy(save_distributed_checkpoint=name == "fsdp2 folder", timeout_minutes=1.0)


def task(world_size: int, folder: Path) -> None:
    """A run under each strategy whose second evaluation is the best and whose third is a collapse."""
    for name in STRATEGIES:
        callbacks = [
            CollapseGuard(action="rollback", truncated_limit=None, no_signal_below=None),
            BestCheckpoint(dirpath=str(folder / name)),
            RunCheckpoint(dirpath=str(folder / name)),
        ]
        module, trainer, data = fit(
            folder,
            [0.5, 0.6, 0.3, 0.3],
            callbacks,
            world_size=world_size,
            strategy=strategy(name),
        )
        weights = {key: whole(value) for key, value in module.state_dict().items()}
        (again,) = trainer.validate(module, datamodule=data, verbose=False)
        rank = torch.distributed.get_rank()
        torch.save({"step": trainer.global_step, "weights": weights, "again": again}, folder / f"{name}-{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the checkpoints and the results of two processes are."""
    folder: Path = tmp_path_factory.mktemp("rollback")
    on_processes(2, task, folder)
    return folder


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_process_holds_the_best_weights(name: str, folder: Path) -> None:
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1))
    assert first["step"] == second["step"] == 3
    assert first["again"] == second["again"]
    best, last = (load_checkpoint(folder / name / f"{which}.ckpt") for which in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 2
    assert any(key.startswith("teacher_weights.") for key in best["state_dict"])
    for key, value in best["state_dict"].items():
        assert torch.equal(last["state_dict"][key], value), key
        assert torch.equal(first["weights"][key], value), key
        assert torch.equal(second["weights"][key], value), key
