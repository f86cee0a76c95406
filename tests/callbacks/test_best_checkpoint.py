"""The best checkpoint: which evaluation it is of, that it outlives every accident, and that a run goes on from it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sgsd_lightning.callbacks import BestCheckpoint, RunCheckpoint
from sgsd_lightning.callbacks.best_checkpoint import FILENAME
from sgsd_lightning.cli import main
from sgsd_lightning.module import SelfDistillation
from tests.support.scripted_runs import fit, saved
from tests.support.tiny_runs import write_run


def keeping(folder: Path, scores: list[float], **settings: Any) -> tuple[BestCheckpoint, Path]:
    best = BestCheckpoint()
    fit(folder, scores, [best, RunCheckpoint(dirpath=str(folder / "checkpoints"))], **settings)
    return best, folder / "checkpoints" / FILENAME


def test_the_best_evaluation_is_kept_and_the_earlier_of_equal_ones(tmp_path: Path) -> None:
    best, path = keeping(tmp_path, [0.2, 0.5, 0.5, 0.4])
    assert (best.score, best.step, best.best_model_path) == (0.5, 2, str(path))
    assert saved(path)["global_step"] == 2
    assert best.description() == f"{path} (val/avg@k 0.5, step 2)"
    assert {file.name for file in path.parent.iterdir()} == {FILENAME, "last.ckpt"}


def test_an_evaluation_of_nothing_is_never_best_and_small_can_be_good(tmp_path: Path) -> None:
    _, path = keeping(tmp_path / "nan", [float("nan"), 0.1, float("nan")])
    assert saved(path)["global_step"] == 2
    best = BestCheckpoint(metric="val/pass@k", mode="min")
    fit(tmp_path / "small", [0.3, 0.1, 0.2], [best], passes=[0.3, 0.1, 0.2])
    assert (best.score, best.step) == (pytest.approx(0.1), 2)


def test_without_validation_or_metric_there_is_none_and_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sgsd_lightning"):
        best, path = keeping(tmp_path, [], limit_val_batches=0, max_steps=1)
        fit(tmp_path / "off", [0.5], [BestCheckpoint(metric=None)])
    assert not path.exists()
    assert not (tmp_path / "off/checkpoints").exists()
    assert best.best_model_path == ""
    assert best.description() is None
    assert not [record for record in caplog.records if record.name.startswith("sgsd_lightning.callbacks")]


def test_an_evaluation_within_a_step_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An evaluation after each of an epoch's three micro-batches, an optimizer step after the second and the third."""
    best, path = keeping(tmp_path, [0.9, 0.2, 0.3, 0.9, 0.1], max_steps=3, accumulate_grad_batches=2)
    assert (best.score, saved(path)["global_step"]) == (pytest.approx(0.3), 2)
    said = [record.message for record in caplog.records if "in the middle of an optimizer step" in record.message]
    assert len(said) == 1
    assert "(step 1) cannot become best.ckpt; make val_check_interval" in said[0]


def test_a_metric_that_is_not_logged_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best_checkpoint\.metric val/avg is not .*; there are .*val/avg@k"):
        fit(tmp_path, [0.5], [BestCheckpoint(metric="val/avg")])
    with pytest.raises(ValueError, match=r"best_checkpoint\.mode must be one of max, min; got 'high'"):
        BestCheckpoint(mode="high")  # type: ignore[arg-type]


def test_what_was_evaluated_after_the_checkpoint_is_not_forgotten(tmp_path: Path) -> None:
    """last.ckpt is written before the evaluation of its step, and best.ckpt after it."""
    folder = tmp_path / "checkpoints"

    def run(scores: list[float], steps: int, resume: Path | None = None) -> BestCheckpoint:
        best = BestCheckpoint()
        fit(tmp_path, scores, [best, RunCheckpoint(dirpath=str(folder))], max_steps=steps, ckpt_path=resume)
        return best

    run([0.2, 0.6], 2)
    last = folder / "last.ckpt"
    key = BestCheckpoint().state_key
    assert saved(last)["callbacks"][key]["score"] == pytest.approx(0.2)
    best = run([0.4], 3, last)
    assert (best.score, best.step) == (pytest.approx(0.6), 2)
    assert saved(folder / FILENAME)["global_step"] == 2
    assert run([0.7], 4, last).step == 4
    # a folder that holds no best checkpoint: the next evaluation is the best that it can hold
    moved = shutil.copy(last, tmp_path / "moved.ckpt")
    (folder / FILENAME).unlink()
    assert run([0.1], 5, Path(moved)).score == pytest.approx(0.1)


def test_a_run_that_goes_on_from_the_best_checkpoint_is_the_same_run(tmp_path: Path) -> None:
    """Three steps an epoch: the best evaluation is at the end of one, and then in the middle of one."""
    for name, scores in {"end": [0.1, 0.2, 0.9, 0.1, 0.1], "middle": [0.1, 0.9, 0.1, 0.1, 0.1]}.items():
        folder = tmp_path / name
        _, path = keeping(folder, scores, max_steps=5)
        step = scores.index(0.9) + 1
        assert saved(path)["global_step"] == step
        again = tmp_path / f"{name} again"
        fit(again, scores[step:], [RunCheckpoint(dirpath=str(again))], max_steps=5, ckpt_path=path)
        straight, resumed = saved(folder / "checkpoints/last.ckpt"), saved(again / "last.ckpt")
        assert resumed["global_step"] == straight["global_step"] == 5
        assert resumed["epoch"] == straight["epoch"]
        for weight, value in straight["state_dict"].items():
            assert torch.equal(resumed["state_dict"][weight], value), f"{name} {weight}"


def test_a_full_disk_is_told_and_the_last_best_checkpoint_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = keeping(tmp_path, [0.5], max_steps=1)
    monkeypatch.setattr("torch.save", _full_disk)
    with pytest.raises(OSError, match=r"best\.ckpt was not written: the disk is full"):
        fit(tmp_path, [0.9], [BestCheckpoint()], max_steps=1)
    assert saved(path)["global_step"] == 1
    assert not list(path.parent.glob("*.partial"))


def _full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_the_command_line_knows_the_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = {"class_path": "sgsd_lightning.data.JsonlProblems", "init_args": {"path": "problems.jsonl"}}
    path = write_run(
        tmp_path,
        max_steps=2,
        limit_val_batches=1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        callbacks=[],
    )
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"] |= {"validation": source, "test": source}
    path.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--config", "run.yaml", "--ckpt_path", "best"]) == 2
    assert main(["fit", "--config", "run.yaml"]) == 0
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert saved(best)["global_step"] == 1  # nothing is ever right here, and the earlier of equal ones stays
    caplog.set_level(logging.INFO, logger="sgsd_lightning")
    assert main(["test", "--config", "run.yaml", "--ckpt_path", "best"]) == 0
    assert any(message.startswith(f"reads {best}") for message in caplog.messages), caplog.messages
    assert main(["fit", "--config", "run.yaml", "--ckpt_path", "best", "--trainer.max_steps=3"]) == 0
    assert saved(best.with_name("last.ckpt"))["global_step"] == 3


def test_lightning_finds_it_after_fit(tmp_path: Path) -> None:
    module, trainer, data = fit(tmp_path, [0.1, 0.9, 0.2], [BestCheckpoint(), RunCheckpoint()])
    assert isinstance(module, SelfDistillation)
    trainer.validate(module, datamodule=data, ckpt_path="best", verbose=False)
    weights = saved(tmp_path / "checkpoints" / FILENAME)["state_dict"]
    assert all(torch.equal(module.state_dict()[name], value) for name, value in weights.items())
