"""Reads a run's folder for a report: curves, rollouts token by token, and the ledger."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgsd_lightning.checkpoints.evidence import load_evidence
from sgsd_lightning.skills.audit import AuditRow, audit_rows

Curve = Sequence[tuple[int, float]]
"""(optimizer step, value)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLogs:
    """One run."""

    name: str
    folder: Path
    curves: Mapping[str, Curve]
    """By the name of the metric."""
    rollouts: Sequence[Mapping[str, Any]]
    """Rollouts that were written token by token, evenly over the steps of the run."""
    num_token_rollouts: int
    """How many such rollouts the run has."""
    ledger: Sequence[AuditRow]
    """Items of the bank, most useful first; empty for a run without one."""


def read_run(folder: Path, name: str, num_rollouts: int) -> RunLogs:
    """Read a run that has ended, or still runs.

    Raises:
        FileNotFoundError: if there is no such folder, or nothing in it that a run logs.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder (looked in {Path.cwd()})")
    files = sorted(folder.glob("metrics/version_*/metrics.csv"), key=lambda file: int(file.parent.name.split("_")[1]))
    curves = read_curves(files)
    if not curves:
        raise FileNotFoundError(
            f"{folder} is not the folder of a run: it has no metrics/version_*/metrics.csv with a step in it"
        )
    rollouts = list(_token_rollouts(folder))
    return RunLogs(
        name=name,
        folder=folder,
        curves=curves,
        rollouts=spread(rollouts, num_rollouts),
        num_token_rollouts=len(rollouts),
        ledger=_ledger(folder),
    )


def read_curves(files: Sequence[Path]) -> dict[str, Curve]:
    """Every metric of some CSV files, of which later ones win; steps are counted from 1."""
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for file in files:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                step = _number(row.get("step"))
                for name, text in row.items():
                    value = _number(text) if name not in ("step", "epoch", None) else None
                    if step is not None and value is not None:
                        points[name][int(step) + 1] = value
    return {name: sorted(of_metric.items()) for name, of_metric in points.items()}


def spread(rows: Sequence[Mapping[str, Any]], num: int) -> list[Mapping[str, Any]]:
    """Choose at most ``num`` rows, evenly over all of them, the first and the last included."""
    if len(rows) <= num:
        return list(rows)
    if num < 2:
        return list(rows[-1:]) if num else []
    return [rows[round(place * (len(rows) - 1) / (num - 1))] for place in range(num)]


def _token_rollouts(folder: Path) -> Iterator[Mapping[str, Any]]:
    """In the order of steps. A line that a running process has not finished yet is left out."""
    rows = []
    for path in sorted(folder.glob("rollouts*.jsonl")):
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            rows += [row for line in lines if '"tokens"' in line and (row := _parsed(line)) is not None]
    yield from sorted(rows, key=lambda row: row["step"])


def _parsed(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and {"step", "tokens", "teachers"} <= row.keys() else None


def _ledger(folder: Path) -> list[AuditRow]:
    try:
        rows = audit_rows(*load_evidence(folder))
    except (FileNotFoundError, ValueError):  # no checkpoint yet, or contexts without a bank
        return []
    return [row for row in rows if row.kind != "pair" and row.num_uses]


def _number(text: str | None) -> float | None:
    """Parse a cell; None if it is empty, incomplete, or no finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
