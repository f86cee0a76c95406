"""docs/metrics.md names what a run logs, and nothing that no code logs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from sgsd_lightning.cli import main

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"]
QUICK += ["--trainer.val_check_interval=1", "--data.init_args.batch_size=1"]
QUICK += [f"--model.init_args.{part}.sampling.max_new_tokens=2" for part in ("rollouts.init_args", "evaluation")]
COUNTERS = ("step", "epoch")


def documented() -> set[str]:
    rows = [line for line in (ROOT / "docs/metrics.md").read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([a-z]+/[\w@]+)`", row.split("|")[1])}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The columns of one step and an evaluation."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", "--config=sgsd_starter", f"--trainer.default_root_dir={folder}", *QUICK]) == 0
    (table,) = folder.glob("metrics/version_*/metrics.csv")
    with table.open(newline="") as file:
        return set(next(csv.reader(file))) - set(COUNTERS)


def test_what_a_run_logs_is_documented(logged: set[str]) -> None:
    of_rollouts = {f"val/{name.removeprefix('rollout/')}" for name in documented() if name.startswith("rollout/")}
    assert {"objective/loss", "optimizer/lr", "optimizer/grad_norm", "val/avg@k"} <= logged
    assert logged - documented() - of_rollouts == set()


def test_what_is_documented_is_logged_somewhere(logged: set[str]) -> None:
    code = "".join(path.read_text() for path in (ROOT / "sgsd_lightning").rglob("*.py"))
    for name in documented() - logged:
        prefix, _, own = name.partition("/")
        stem = own.removesuffix("_ms") if prefix == "time" else own
        assert re.search(rf'["/]{re.escape(stem)}"', code), name
