"""`benchmarks.same_numbers` sees one bit, a missing row, what vanished, and takes a renamed key for the same."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.same_numbers.__main__ import main
from benchmarks.same_numbers.compare import MISSING, compare
from benchmarks.same_numbers.renames import Generation, Names
from benchmarks.same_numbers.results import Results, Row, read_results
from benchmarks.same_numbers.runs import RUNS, selected
from benchmarks.same_numbers.trees import commit_of

REGROUPED = Generation(
    marker="names.py",
    marker_text="new",
    options={"model.sampling": "model.rollouts.sampling", "model.rollouts": "model.rollouts.engine"},
    values={"package.strategies": "package.distributed"},
    replaced={"--config=growing": ("--config=toy", "--config=method/growing")},
    files={"rollouts.jsonl": "tables/rollouts.jsonl"},
    metrics={"objective/loss": "student/objective/loss"},
    fields={"group_index": "sample_index"},
    tensors={"state_dict.model": "state_dict.learner.model"},
)
OLD_NAMES = Names(known=(), missing=(REGROUPED,))
NEW_NAMES = Names(known=(REGROUPED,), missing=())


def write(folder: Path, names: Names = OLD_NAMES, change: Callable[[dict[str, Any]], None] | None = None) -> Results:
    """What a run of two steps leaves, in old or new names, after ``change`` of its parts."""
    is_new = names is NEW_NAMES
    loss = "student/objective/loss" if is_new else "objective/loss"
    parts: dict[str, Any] = {
        "metrics": [{loss: 0.5, "step": 0, "time/step_ms": id(folder)}, {loss: 0.25, "step": 1, "time/step_ms": 1}],
        "rollouts": [
            {"step": step, "sample_index" if is_new else "group_index": 0, "teachers": [{"weight": 0.5}]}
            for step in (1, 2)
        ],
        "state_dict": {"learner.model.weight" if is_new else "model.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2, dtype=torch.bfloat16)}}}],
    }
    if change is not None:
        change(parts)
    for subfolder in ("metrics/version_0", "checkpoints", "tables"):
        (folder / subfolder).mkdir(parents=True)
    with (folder / "metrics/version_0/metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, parts["metrics"][0])
        writer.writeheader()
        writer.writerows(parts["metrics"])
    table = folder / ("tables/rollouts.jsonl" if is_new else "rollouts.jsonl")
    table.write_text("".join(json.dumps(row) + "\n" for row in parts["rollouts"]))
    checkpoint = {name: parts[name] for name in ("state_dict", "optimizer_states")}
    torch.save({**checkpoint, "global_step": 2}, folder / "checkpoints/last.ckpt")
    return read_results(folder, names)


def one_bit(parts: dict[str, Any]) -> None:
    parts["state_dict"]["model.weight"].view(torch.int32)[1, 0] += 1


def momentum(parts: dict[str, Any]) -> None:
    parts["optimizer_states"][0]["state"][0]["exp_avg"][1] = -0.0


def metric(parts: dict[str, Any]) -> None:
    parts["metrics"][1]["objective/loss"] = 0.25000000000000006
    one_bit(parts)  # later than step 1


def missing_row(parts: dict[str, Any]) -> None:
    parts["rollouts"].pop()


def field(parts: dict[str, Any]) -> None:
    parts["rollouts"][1]["teachers"][0]["weight"] = 1


FIRST_DIFFERENCES = {
    one_bit: (
        "checkpoints/last.ckpt, step 2, state_dict.learner.model.weight: 3.0 (at [1, 0], the first of 1 of 4) in the "
        "old tree, 3.000000238418579 in the new"
    ),
    momentum: (
        "checkpoints/last.ckpt, step 2, optimizer_states[0].state.0.exp_avg: 0.0 (at [1], the first of 1 of 2) in the "
        "old tree, -0.0 in the new"
    ),
    metric: (
        "metrics/version_0/metrics.csv, step 1, student/objective/loss: '0.25' in the old tree, "
        "'0.25000000000000006' in the new"
    ),
    missing_row: "tables/rollouts.jsonl, step 2, number of rows: 2 in the old tree, 1 in the new",
    field: "tables/rollouts.jsonl, step 2, teachers[0].weight: 0.5 in the old tree, 1 in the new",
}


@pytest.mark.parametrize("change", FIRST_DIFFERENCES, ids=lambda change: change.__name__)
def test_the_first_difference_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    comparison = compare(write(tmp_path / "old"), write(tmp_path / "new", change=change))
    assert str(comparison.first) == FIRST_DIFFERENCES[change]


def test_renamed_keys_are_the_same_and_times_do_not_count(tmp_path: Path) -> None:
    old, new = write(tmp_path / "old"), write(tmp_path / "new", NEW_NAMES)
    comparison = compare(old, new)
    assert (comparison.first, comparison.only_old, comparison.only_new) == (None, (), ())
    assert comparison.num_values == 15  # 4 in metrics, 8 in rows, 3 in the checkpoint
    assert not any("time/" in key for rows in old.values() for row in rows for key in row.values)


def test_what_vanished_is_a_difference_unless_it_may_and_what_is_new_is_listed() -> None:
    old = {"metrics.csv": [Row(0, {"loss": "1", "gone": "2"})]}
    new = {"metrics.csv": [Row(0, {"loss": "1", "added": "3"})]}
    comparison = compare(old, new)
    assert comparison.first is not None
    assert (comparison.first.key, comparison.first.new) == ("gone", MISSING)
    assert comparison.only_old == ("metrics.csv: gone",)
    assert comparison.only_new == ("metrics.csv: added",)
    assert compare(old, new, may_vanish=["metrics*: gone"]).first is None
    # a cell that other rows have is no vanished key
    partly = {"metrics.csv": [Row(0, {"loss": "1"}), Row(1, {"loss": "1", "gone": "2"})]}
    found = compare({"metrics.csv": old["metrics.csv"] * 2}, partly).first
    assert found is not None
    assert (found.step, found.key, found.new) == (0, "gone", MISSING)


def test_a_run_that_left_nothing_is_not_the_same() -> None:
    assert compare({}, {}).first is not None


def test_arguments_are_written_for_the_tree(tmp_path: Path) -> None:
    written = [
        "fit",
        "--config=growing",
        "--model.sampling.max_new_tokens=4",
        "--model.rollouts.batch_size=2",
        "--strategy=package.strategies.FSDP2",
    ]
    assert Names.of(tmp_path, (REGROUPED,)) == OLD_NAMES
    (tmp_path / "names.py").write_text("old")
    assert Names.of(tmp_path, (REGROUPED,)).arguments(written) == written
    (tmp_path / "names.py").write_text("new")
    assert Names.of(tmp_path, (REGROUPED,)).arguments(written) == [
        "fit",
        "--config=toy",
        "--config=method/growing",
        "--model.rollouts.sampling.max_new_tokens=4",
        "--model.rollouts.engine.batch_size=2",
        "--strategy=package.distributed.FSDP2",
    ]


def test_revisions_and_runs_are_found_or_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commit_of("HEAD", tmp_path) == commit_of(head[:8], tmp_path) == head

    assert main(["--against", "no-such-revision"]) == 2
    assert "error: --against no-such-revision: " in capsys.readouterr().err
    assert [run.name for run in selected("grpo, sgsd")] == ["sgsd", "grpo"]
    assert len(selected("")) == len(RUNS)
    with pytest.raises(ValueError, match="--only sgdd: no such run; there are sgsd, "):
        selected("sgsd,sgdd")


def test_a_run_without_its_data_is_skipped_with_what_is_missing(tmp_path: Path) -> None:
    (lora,) = selected("lora")
    assert lora.reason_to_skip(tmp_path) == f"{tmp_path / lora.needs[0]} does not exist"
    for path in lora.needs:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert lora.reason_to_skip(tmp_path) == ""
