"""Step 10: four steps of SGSD on the device, by `sgsd fit`, or by the loop of the examples where that cannot be run.

The policy has random weights and the depth of a real one, since decoding waits for launches, not for arithmetic.
"""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import python_module, run_tool

NUM_STEPS = 4
BATCH_SIZE = 8
DEEP: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_layers": 28,
    "num_heads": 8,
    "num_kv_heads": 4,
    "intermediate_size": 3072,
    "dtype": "bfloat16",
}
SMALL: Mapping[str, Any] = {"hidden_size": 64, "num_layers": 2}
"""On a CPU, to see that it runs."""


def measure(record: Record) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = DEEP if device == "cuda" else SMALL
    needs = ("jsonargparse", "lightning")
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    record.put(device=device, way="the plain loop" if missing else "sgsd fit", missing=missing)
    if missing:
        _loop(record, device, sizes)
    else:
        _fit(record, device, sizes)


def _fit(record: Record, device: str, sizes: Mapping[str, Any]) -> None:
    record.at("sgsd fit")
    folder = record.path.with_suffix("")
    policy = "--model.init_args.policy"
    options = {
        "--trainer.accelerator": "gpu" if device == "cuda" else "cpu",
        "--trainer.max_steps": NUM_STEPS,
        "--trainer.default_root_dir": folder,
        f"{policy}.class_path": "sgsd_lightning.policy.RandomPolicy",
        **{f"{policy}.init_args.{name}": value for name, value in sizes.items()},
    }
    arguments = [f"{name}={value}" for name, value in options.items()]
    done = run_tool(python_module("sgsd_lightning", "fit", "--config", "sgsd_toy", *arguments))
    if done.returncode:
        raise RuntimeError(f"sgsd fit ended with exit status {done.returncode}; see its output above")
    rows = _metrics(folder)
    record.put(num_steps=len(rows), is_finite=all("nan" not in row.values() for row in rows), phases=phases_of(rows))


def _metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of training steps in the newest metrics.csv."""
    files = sorted(folder.rglob("metrics.csv"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise RuntimeError(f"sgsd fit wrote no metrics.csv under {folder}")
    with files[-1].open() as lines:
        return [row for row in csv.DictReader(lines) if any(row[name] for name in row if name.startswith("time/"))]


def phases_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean milliseconds by phase (``time/PHASE_ms``) over the last half of the steps: the first ones compile."""
    last = rows[len(rows) // 2 :]
    names = [name for name in (last[0] if last else {}) if name.startswith("time/") and name.endswith("_ms")]
    found = {name: [float(row[name]) for row in last if row[name]] for name in names}
    return {
        name.removeprefix("time/").removesuffix("_ms"): sum(values) / len(values)
        for name, values in found.items()
        if values
    }


def _loop(record: Record, device: str, sizes: Mapping[str, Any]) -> None:
    """The loop of ``examples/sgsd_loop.py``, which needs neither Lightning nor the command line."""
    record.at("examples/sgsd_loop.py")
    from benchmarks.first_contact.probes.timed_loop import TimedLoop
    from sgsd_lightning.data import ProblemLoader
    from sgsd_lightning.policy import RandomPolicy
    from sgsd_lightning.toy import ToyProblems

    loop = TimedLoop(RandomPolicy(**sizes))
    loop.model.to(device)
    problems = ToyProblems("train", BATCH_SIZE * NUM_STEPS).load()
    batches = iter(ProblemLoader(problems, batch_size=BATCH_SIZE, seed=0, drop_last=True))
    losses: list[float] = []
    for step in range(NUM_STEPS):
        loss, _ = loop.step(next(batches), step)
        losses.append(loss)
        record.put(
            num_steps=step + 1, is_finite=all(math.isfinite(loss) for loss in losses), phases=phases_of(loop.rows)
        )
