"""Runs that are killed, stopped or broken: what they leave behind, and that going on from it changes nothing."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_runs import REPOSITORY, start, write_run

FOLDER = "--trainer.default_root_dir={}"
RESUME = "--ckpt_path=last"
MEASURED = ("time/", "memory/")
"""Metrics that two equal runs do not share."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file live, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run that nothing happened to."""
    started = start(folder, FOLDER.format("whole"))
    assert started.wait() == [0], started.said()
    return folder / "whole"


def checkpoint_of(run: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor, number and string of a checkpoint, by where it is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        yield name, value
        return
    for key, inner in items:
        yield from leaves(inner, f"{name}/{key}")


def metric_rows(run: Path) -> list[dict[str, str]]:
    """Of the one table of a run, however often it was started, without what is measured; a row per step."""
    (path,) = run.glob("metrics/version_*/metrics.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in rows]


def rollout_rows(run: Path) -> list[list[dict[str, Any]]]:
    return [[json.loads(line) for line in path.open()] for path in sorted(run.glob("rollouts*.jsonl"))]


def assert_same_run(found: Path, expected: Path) -> None:
    """Weights, optimizer, schedule, teacher, contexts, positions, and everything that was logged, bit for bit."""
    one, other = checkpoint_of(found), checkpoint_of(expected)
    assert any(name.startswith("teacher_weights.") for name in other["state_dict"])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "sgsd_lightning", "global_step", "epoch"):
        values, wanted = dict(leaves(one[part])), dict(leaves(other[part]))
        assert values.keys() == wanted.keys(), part
        for name, value in wanted.items():
            same = torch.equal(values[name], value) if isinstance(value, torch.Tensor) else values[name] == value
            assert same, f"{part}{name}: {values[name]} instead of {value}"
    assert metric_rows(found) == metric_rows(expected)
    assert rollout_rows(found) == rollout_rows(expected)


def go(folder: Path, run: str, accidents: list[str], statuses: list[int], *arguments: str) -> str:
    """Start a run for each accident, going on from its last checkpoint; what its first process said at the end."""
    said = ""
    for accident in accidents:
        resume = [RESUME] if (folder / run / "checkpoints/last.ckpt").exists() else []
        started = start(folder, FOLDER.format(run), *resume, *arguments, num_processes=len(statuses), accident=accident)
        found, said = started.wait(), started.said()
        assert found == (statuses if accident else [0] * len(statuses)), said
    return said


def step_of_last(run: Path) -> int:
    return int(checkpoint_of(run)["global_step"])


def test_a_run_that_is_killed_again_and_again_equals_one_that_was_not(folder: Path, whole: Path) -> None:
    """Three steps an epoch, of two, two and one micro-batches; a checkpoint every second step."""
    go(folder, "killed", ["kill@3", "tear@5"], [-9])
    # died in the middle of writing the checkpoint of step 4
    partial = folder / "killed/checkpoints/last.ckpt.partial"
    assert partial.stat().st_size > 10_000
    assert step_of_last(folder / "killed") == 2
    go(folder, "killed", ["kill@4"], [-9])  # in the middle of step 5, one micro-batch after the checkpoint
    assert not partial.exists()
    assert step_of_last(folder / "killed") == 4
    go(folder, "killed", ["kill@2", ""], [-9])  # after step 5, before its checkpoint
    assert_same_run(folder / "killed", whole)


def test_adapters_on_weights_of_half_precision_resume_bit_for_bit(folder: Path) -> None:
    """As on a laptop: frozen bfloat16, LoRA in float32."""
    policy = "--model.init_args.policy.init_args"
    arguments = [f"{policy}.dtype=bfloat16", f"{policy}.lora.rank=2", "--trainer.max_steps=4"]
    go(folder, "half", [""], [0], *arguments)
    go(folder, "half-killed", ["kill@3", ""], [-9], *arguments)
    assert_same_run(folder / "half-killed", folder / "half")
    weights = checkpoint_of(folder / "half")["state_dict"]
    assert {value.dtype for name, value in weights.items() if "lora_" in name} == {torch.float32}


def test_a_signal_ends_a_run_after_its_step_and_nothing_is_lost(folder: Path, whole: Path) -> None:
    run = folder / "stopped"
    said = go(folder, "stopped", ["terminate@1"], [143])
    assert "sgsd: SIGTERM: stopping after this optimizer step" in said
    assert f"sgsd: stopped by SIGTERM after step 1. {run}/checkpoints/last.ckpt of step 1 is complete" in said
    assert "Traceback" not in said
    assert step_of_last(run) == 1
    said = go(folder, "stopped", ["interrupt@3"], [130])
    assert "stopped by SIGINT after step 3" in said
    requeued = start(folder, FOLDER.format("stopped"), SLURM_RESTART_COUNT="1")
    assert requeued.wait() == [0], requeued.said()
    assert_same_run(run, whole)


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(folder: Path, whole: Path) -> None:
    source = "--data.init_args.validation"
    evaluation = [
        f"{source}=sgsd_lightning.data.JsonlProblems",
        f"{source}.init_args.path=problems.jsonl",
        "--data.init_args.evaluation_batch_size=1",
        "--trainer.limit_val_batches=1.0",
        "--checkpoint.every_n_train_steps=100",
    ]
    run = folder / "evaluated"
    said = go(folder, "evaluated", ["evaluate@5"], [143], *evaluation)
    assert "sgsd: stopped by SIGTERM after step 3" in said
    evaluated = [json.loads(line)["problem_id"] for line in (run / "evaluation.jsonl").open()]
    assert set(evaluated) == {"p0"}
    assert step_of_last(run) == 3
    go(folder, "evaluated", [""], [0], *evaluation)
    found, expected = (checkpoint_of(path)["state_dict"] for path in (run, whole))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.slow
def test_two_processes_are_one_run(folder: Path) -> None:
    """A signal to one stops both, the death of one ends the other, and what is gone on with is the same run."""
    go(folder, "whole-2", [""], [0, 0])
    said = go(folder, "two", ["terminate@1/1"], [143, 0])
    assert "sgsd: stopped by SIGTERM after step 1" in said
    said = go(folder, "two", ["kill@3/1"], [1, -9])
    last_words = said[said.index("sgsd: error:") :]
    assert "another process of this run died or stopped answering" in last_words
    assert "last.ckpt of step 2 is complete; resume it with --ckpt_path last" in last_words
    assert "Traceback" not in last_words
    go(folder, "two", [""], [0, 0])
    assert_same_run(folder / "two", folder / "whole-2")


def last_words(said: str) -> str:
    return said[said.index("sgsd: error:") :]


def test_another_configuration_bank_or_data_set_is_refused_or_allowed(folder: Path, whole: Path) -> None:
    """Before the model is loaded, and with a line for everything that differs."""
    bank = json.loads((folder / "bank.json").read_text())
    bank["general_skills"][0]["principle"] = "Another"
    (folder / "other_bank.json").write_text(json.dumps(bank))
    problems = (folder / "problems.jsonl").read_text()
    (folder / "other_problems.jsonl").write_text(problems.replace("What is", "Say what is"))
    changes = [
        "--model.init_args.objective.init_args.gate_temperature=2",
        "--model.init_args.contexts.init_args.bank=other_bank.json",
        "--data.init_args.train.init_args.path=other_problems.jsonl",
        "--trainer.accumulate_grad_batches=1",
        "--trainer.gradient_clip_val=0.1",
        "--trainer.max_steps=6",
        "--rollout_table.every_n_steps=2",
    ]
    refused = start(folder, FOLDER.format("whole"), RESUME, *changes)
    assert refused.wait() == [2]
    told = last_words(refused.said()).splitlines()
    assert told[0] == "sgsd: error: the checkpoint was written with something else:"
    assert [line.split(":")[0].strip() for line in told[1:6]] == [
        "model.init_args.objective.init_args.gate_temperature",
        "trainer.gradient_clip_val",
        "content of the teacher contexts (skill bank)",
        "content of the training problems",
        "trainer.accumulate_grad_batches",
    ]
    assert told[1].endswith("gate_temperature: 1.0 in the checkpoint, 2.0 now")
    assert "--resume.allow_changes=true" in told[6]
    assert "is untouched" in told[7]
    assert "attention:" not in refused.said()  # which is told once the model is there
    shutil.copytree(whole, folder / "changed")
    allowed = start(folder, FOLDER.format("changed"), RESUME, *changes, "--resume.allow_changes=true")
    assert allowed.wait() == [0], allowed.said()
    assert "gate_temperature: 1.0 in the checkpoint, 2.0 now" in allowed.said()
    assert step_of_last(folder / "changed") == 6


def test_a_bank_that_vanished_is_told_and_nothing_is_lost(folder: Path, whole: Path) -> None:
    started = start(folder, FOLDER.format("whole"), RESUME, "--model.init_args.contexts.init_args.bank=nowhere.json")
    assert started.wait() == [2]
    told = last_words(started.said()).splitlines()
    assert "skill bank nowhere.json does not exist" in told[0]
    assert told[1] == f"The checkpoint {whole}/checkpoints/last.ckpt, which this run resumed, is untouched"


def test_a_full_disk_is_told_and_the_last_checkpoint_stands(folder: Path) -> None:
    started = start(folder, FOLDER.format("full"), "--checkpoint.every_n_train_steps=1", accident="fill@3")
    assert started.wait() == [2]
    run = folder / "full"
    told = last_words(started.said())
    assert told.startswith(f"sgsd: error: checkpoint {run}/checkpoints/step-2.ckpt was not written: the disk is full")
    assert f"{run}/checkpoints/last.ckpt of step 1 is complete; resume it with --ckpt_path last" in told
    assert step_of_last(run) == 1
    assert not list(run.glob("checkpoints/*.partial"))


def test_a_loss_that_is_no_number_stops_the_run_or_skips_the_step(folder: Path) -> None:
    stopped = start(folder, FOLDER.format("nan"), accident="nan@5")
    assert stopped.wait() == [1]
    told = last_words(stopped.said())
    assert re.match(r"sgsd: error: the loss of step 3 is not finite, on problems p\d, p\d; it did not touch", told)
    assert "last.ckpt of step 2 is complete" in told
    skipped = start(folder, FOLDER.format("skip"), "--nonfinite_loss.action=skip", num_processes=2, accident="nan@3/1")
    assert skipped.wait() == [0, 0], skipped.said() + skipped.said(1)
    rows = metric_rows(folder / "skip")
    assert [float(row["objective/skipped_steps"]) for row in rows] == [0, 1, 1, 1, 1]
    assert all(weight.isfinite().all() for weight in checkpoint_of(folder / "skip")["state_dict"].values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accident", "status", "told"),
    [
        ("kill@3/1", 1, "died"),
        ("terminate@3/0", 143, "sgsd: stopped by SIGTERM after step 2"),
    ],
)
def test_processes_that_lightning_starts_end_together(folder: Path, accident: str, status: int, told: str) -> None:
    """As `sgsd fit --trainer.devices=2` starts them, by running itself once more."""
    name = f"launched-{status}"
    command = [str(Path(sys.executable).parent / "sgsd"), "fit", "--config", "run.yaml", FOLDER.format(name)]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.init_args.batch_size=1"]
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "kernels")])
    environment = {**os.environ, "SGSD_TEST_ACCIDENT": accident, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode in (status, -9 if status == 1 else status), ended.stderr
    assert told in ended.stderr
    assert "--ckpt_path last" in ended.stderr or "No checkpoint was written yet" in ended.stderr
