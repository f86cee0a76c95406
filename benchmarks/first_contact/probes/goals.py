"""Step 9a: the goals of `benchmarks.goals`, at the size that they are stated for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.cases import MODES, Mode, Size
from benchmarks.first_contact.probes.record import Record
from benchmarks.gated_head import AUTHORS, GatedHead
from benchmarks.goals import STATED_FOR, goals
from benchmarks.harness import Settings
from benchmarks.harness import measure as measure_cases
from benchmarks.results import summary

PROVIDERS = ("sgsd_kernels triton", "sgsd_kernels cublas", AUTHORS)
SECONDS = 0.3


def measure(record: Record) -> None:
    measure_goals(record, STATED_FOR, MODES)


def measure_goals(record: Record, size: Size, modes: Sequence[Mode]) -> None:
    """Measure ours and the authors' scheme mode by mode, and what the goals make of the rows so far."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    for mode in modes:
        record.at(f"{mode}, {size}")
        settings = Settings(device=device, seconds=SECONDS, only=PROVIDERS, modes=(mode,))
        for case in measure_cases(GatedHead(), [size], settings):
            print(summary(case), flush=True)
            rows += [row.as_dict() for row in case]
        record.put(
            goals=[dataclasses.asdict(goal) for goal in goals(rows) if goal.is_met is not None],
            rows=[_short(row) for row in rows],
        )


def _short(row: dict[str, Any]) -> dict[str, Any]:
    milliseconds, workspace = row["milliseconds"], row["workspace_bytes"]
    return {
        "mode": row["mode"],
        "provider": row["provider"],
        "status": row["status"],
        "ms": None if milliseconds is None else milliseconds["median"],
        "share_of_bare_product": row["share_of_bare_product"],
        "workspace_mb": None if workspace is None else workspace / 1e6,
        "reason": row["reason"],
    }
