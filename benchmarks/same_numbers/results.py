"""What a run left in its folder, as rows of values under the newest names."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from benchmarks.same_numbers.renames import Names

VOLATILE = ("time/*", "memory/*", "*_ms", "*_per_s", "seconds")
"""Metrics and fields that no two runs have in common."""
COMPARED_PARTS = ("state_dict", "optimizer_states", "lr_schedulers")
"""Of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Row:
    """Values by key at one step: numbers, texts or tensors."""

    step: int | None
    values: Mapping[str, Any]


Results = dict[str, list[Row]]
"""Rows by file: metrics first, then tables, then checkpoints."""


def read_results(folder: Path, names: Names) -> Results:
    """Everything in a run folder that must be the same when it is made again."""
    readers: tuple[tuple[str, Callable[[Path, Names], list[Row]]], ...] = (
        ("metrics/*/metrics.csv", _metrics),
        ("**/*.jsonl", _table),
        ("skills/*.json", _document),
        ("checkpoints/*.ckpt", _checkpoint),
    )
    return {
        names.file(str(path.relative_to(folder))): read(path, names)
        for pattern, read in readers
        for path in sorted(folder.glob(pattern))
    }


def _metrics(path: Path, names: Names) -> list[Row]:
    """One row per step; trees of the past wrote an evaluation's numbers into a row of its own."""
    steps: dict[int | None, dict[str, Any]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values = {names.metric(key): value for key, value in row.items() if value and not _is_volatile(key)}
            steps.setdefault(int(row["step"]) if row.get("step") else None, {}).update(values)
    return [Row(step, values) for step, values in steps.items()]


def _table(path: Path, names: Names) -> list[Row]:
    return [_row(json.loads(line), names) for line in path.read_text(encoding="utf-8").splitlines()]


def _document(path: Path, names: Names) -> list[Row]:
    return [_row(json.loads(path.read_text(encoding="utf-8")), names)]


def _row(content: Any, names: Names) -> Row:
    step = content.get("step") if isinstance(content, dict) else None
    return Row(step, dict(_flat(_renamed(content, names))))


def _renamed(content: Any, names: Names) -> Any:
    if isinstance(content, dict):
        return {names.field(key): _renamed(value, names) for key, value in content.items() if not _is_volatile(key)}
    if isinstance(content, list):
        return [_renamed(value, names) for value in content]
    return content


def _checkpoint(path: Path, names: Names) -> list[Row]:
    content = _sharded(path) if path.is_dir() else _load(path)
    parts = {name: content[name] for name in COMPARED_PARTS if name in content}
    return [Row(content.get("global_step"), {names.tensor(key): value for key, value in _flat(parts)})]


def _sharded(folder: Path) -> dict[str, Any]:
    """The content of a distributed checkpoint, put together, in the layout of a single file."""
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole.ckpt"
        dcp_to_torch_save(folder, whole)
        content = _load(whole)
    optimizers = [content[key] for key in sorted(content) if key.startswith("optimizer_")]
    return {**_load(folder / "meta.pt"), "state_dict": content["state_dict"], "optimizer_states": optimizers}


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _flat(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys such as ``teachers[0].weight`` with the values that are neither mappings nor lists."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, (list, tuple)):
        yield f"{key}.length", len(content)
        for index, value in enumerate(content):
            yield from _flat(value, f"{key}[{index}]")
    else:
        yield key, content


def _is_volatile(key: str) -> bool:
    return any(fnmatch(key, pattern) for pattern in VOLATILE)
