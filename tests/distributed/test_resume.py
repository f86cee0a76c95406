"""Stopped and resumed on 2 processes: bit for bit the run that was not; checkpoints of one strategy serve another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.callbacks import RunCheckpoint
from sgsd_lightning.checkpoints.folders import is_sharded_checkpoint, recovered
from sgsd_lightning.policy import EmaTeacher, LoraSettings
from sgsd_lightning.training.fsdp2 import FSDP2Strategy
from tests.support.runs import Run, data_of, on_processes, tiny_run, whole
from tests.support.tiny import tiny_policy

STOP, END = 2, 4
LORA = LoraSettings(rank=2, alpha=4)


def strategy(name: str) -> Any:
    if name == "ddp":
        return "ddp"
    return FSDP2Strategy(save_distributed_checkpoint=name == "fsdp2 folder", timeout_minutes=1.0)


def run(lora: LoraSettings | None) -> Run:
    """Steps in the middle of an epoch, two micro-batches each, with everything that a checkpoint must hold."""
    return Run(
        module=lambda: {
            "policy": tiny_policy(lora=lora),
            "teacher_weights": EmaTeacher(0.5),
            "lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, END),
        },
        trainer=lambda: {"accumulate_grad_batches": 2, "enable_checkpointing": True},
        global_batch=2,
        num_problems=10,
        drop_last=False,
    )


def train(name: str, lora: LoraSettings | None, folder: Path, steps: int, resume: Path | None = None) -> dict[str, Any]:
    checkpoint = RunCheckpoint(dirpath=str(folder / f"{steps}"), every_n_train_steps=STOP)
    module, trainer, recorder = tiny_run(
        run(lora), 2, folder, strategy=strategy(name), max_steps=steps, callbacks=[checkpoint]
    )
    trainer.fit(module, datamodule=data_of(run(lora), 2), ckpt_path=resume)
    return {
        "weights": {key: whole(value) for key, value in module.model.named_parameters()},
        "teacher": {key: whole(value) for key, value in module.teacher_weights.named_parameters()},
        "losses": recorder.losses[-2:],
        "completions": [rollout.completion_ids for rollout in recorder.rollouts],
    }


CASES = [("ddp", None), ("fsdp2 folder", None), ("fsdp2 file", None), ("fsdp2 folder", LORA), ("fsdp2 file", LORA)]
CROSSED = [("ddp", "fsdp2 folder"), ("fsdp2 file", "ddp")]


def task(world_size: int, folder: Path) -> None:
    """Every case straight and in two parts, then checkpoints taken up under another strategy."""
    results: dict[str, Any] = {}
    for name, lora in CASES:
        case = folder / f"{name} {'lora' if lora else 'full'}"
        straight = train(name, lora, case, END)
        train(name, lora, case, STOP)
        results[case.name] = straight, train(name, lora, case / "resumed", END, case / f"{STOP}" / "last.ckpt")
    for source, target in CROSSED:
        last = folder / f"{source} full" / f"{STOP}" / "last.ckpt"
        results[f"{source} to {target}"] = train(target, None, folder / f"{source} to {target}", END, last)
    if torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the checkpoints and the results of two processes are."""
    folder: Path = tmp_path_factory.mktemp("resume")
    on_processes(2, task, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "results.pt", weights_only=False)
    return loaded


@pytest.mark.parametrize(("name", "lora"), CASES)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    name: str, lora: LoraSettings | None, results: dict[str, Any]
) -> None:
    straight, resumed = results[f"{name} {'lora' if lora else 'full'}"]
    assert resumed["losses"] == straight["losses"]
    # the epoch's five micro-batches end in a step of one
    assert len(resumed["completions"]) == 3
    assert resumed["completions"] == straight["completions"][-3:]
    assert straight["teacher"]
    for part in ("weights", "teacher"):
        assert resumed[part].keys() == straight[part].keys()
        for key, value in straight[part].items():
            assert torch.equal(resumed[part][key], value), f"{part} {key}"
    initial = next(iter(straight["teacher"].values()))
    assert not torch.equal(initial, next(iter(straight["weights"].values())))


@pytest.mark.parametrize(("source", "target"), CROSSED)
def test_a_checkpoint_serves_another_strategy(source: str, target: str, results: dict[str, Any]) -> None:
    expected, _ = results[f"{source} full"]
    found = results[f"{source} to {target}"]
    for part in ("weights", "teacher"):
        for key, value in expected[part].items():
            torch.testing.assert_close(found[part][key], value, atol=1e-6, rtol=0)


def test_a_folder_is_complete_or_not_there(folder: Path) -> None:
    written = folder / "fsdp2 folder full" / f"{STOP}"
    names = sorted(path.name for path in written.iterdir())
    assert names == ["last.ckpt", f"step-{STOP}.ckpt"]
    assert all(is_sharded_checkpoint(written / name) for name in names)


def test_a_folder_that_was_about_to_be_replaced_is_found_again(tmp_path: Path) -> None:
    old = tmp_path / "last.ckpt.old"
    old.mkdir()
    (old / "meta.pt").touch()
    assert recovered(tmp_path / "last.ckpt") == old
    (tmp_path / "last.ckpt").mkdir()
    assert recovered(tmp_path / "last.ckpt") == tmp_path / "last.ckpt"
