"""What a study came to: one JSON file, one page of tables, one picture."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sgsd_lightning.cli.study.run_variant import StudyRun
from sgsd_lightning.cli.study.variants import Variant
from sgsd_lightning.distributed.machine import describe_machine
from sgsd_lightning.metrics.intervals import half_width

TARGET = 0.7
"""avg@k on the validation problems that a run is timed to, in optimizer steps."""
PACKAGES = ("torch", "lightning", "transformers", "sgsd-lightning")
METHOD_HEADER = (
    "method",
    "avg@4, plain prompts",
    "by seed",
    "avg@4, with the best-ranked pair",
    "pass@4",
    "majority@4",
    f"steps to {TARGET} by seed",
    "tokens sampled",
    "s a run",
)
SWEEP_HEADER = ("avg@4, plain prompts", "by seed", "pass@4", "helpful / misleading at the end")


def summarise(runs: Sequence[StudyRun], command: Sequence[str]) -> dict[str, Any]:
    """The results of all runs that are done, a row each variant, with where they come from."""
    by_variant: dict[Variant, list[StudyRun]] = {}
    for run in runs:
        by_variant.setdefault(run.variant, []).append(run)
    rows = [_row(variant, of_variant) for variant, of_variant in by_variant.items()]
    return {
        "command": shlex.join(command),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "max_steps": max(run.max_steps for run in runs),
        "target": TARGET,
        "rows": [row for row in rows if row["seeds"]],
    }


def _row(variant: Variant, runs: Sequence[StudyRun]) -> dict[str, Any]:
    """Every number is a list, one entry a seed."""
    found = [(run.seed, run.result) for run in runs]
    done = [(seed, result) for seed, result in found if result is not None]
    results = [result for _, result in done]
    return {
        "group": variant.group,
        "name": variant.name,
        "setting": variant.setting,
        "seeds": [seed for seed, _ in done],
        **{
            name: {metric: [result[name][metric] for result in results] for metric in results[0][name]}
            for name in ("plain", "with_skill")
            if results
        },
        "seconds": [result["seconds"] for result in results],
        "tokens_sampled": [result["tokens_sampled"] for result in results],
        "steps_to_target": [_steps_to(result["curves"]["avg@k"]) for result in results],
        "curves": {
            name: [result["curves"][name] for result in results]
            for name in ("avg@k", "helpful_frac", "misleading_frac")
            if results
        },
    }


def _steps_to(curve: Sequence[Sequence[float]]) -> int | None:
    return next((int(step) for step, value in curve if value >= TARGET), None)


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """``summary.json``, and ``study.md`` with the tables."""
    (folder / "summary.json").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    (folder / "study.md").write_text(tables(summary) + "\n", encoding="utf-8")


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """``study.png``."""
    from sgsd_lightning.reports.study_picture import draw_study

    draw_study(folder / "study.png", summary)


def tables(summary: Mapping[str, Any]) -> str:
    """Markdown, a table each group."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in summary["rows"]:
        groups.setdefault(row["group"], []).append(row)
    return "\n\n".join(_table(group, rows) for group, rows in groups.items())


def _table(group: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if rows[0]["setting"] is None:
        return markdown_table(METHOD_HEADER, [_method_cells(row) for row in rows])
    return markdown_table((group, *SWEEP_HEADER), [_sweep_cells(row) for row in rows])


def _method_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    is_trained = any(row["seconds"])
    return (
        row["name"],
        spread(row["plain"]["avg@k"]),
        _by_seed(row["plain"]["avg@k"]),
        spread(row["with_skill"]["avg@k"]),
        f"{statistics.mean(row['plain']['pass@k']):.3f}",
        f"{statistics.mean(row['plain']['majority@k']):.3f}",
        " / ".join(str(steps or "never") for steps in row["steps_to_target"]) if is_trained else "",
        f"{statistics.mean(row['tokens_sampled']):,.0f}" if is_trained else "",
        f"{statistics.mean(row['seconds']):.0f}" if is_trained and row["group"] == "methods" else "",
    )


def _sweep_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    ends = [
        statistics.mean(curve[-1][1] for curve in row["curves"][name])
        for name in ("helpful_frac", "misleading_frac")
        if all(row["curves"][name])
    ]
    return (
        row["name"],
        spread(row["plain"]["avg@k"]),
        _by_seed(row["plain"]["avg@k"]),
        f"{statistics.mean(row['plain']['pass@k']):.3f}",
        " / ".join(f"{value:.2f}" for value in ends),
    )


def spread(values: Sequence[float]) -> str:
    """The mean, and half the width of its 95 % interval over seeds."""
    width = half_width(values)
    return f"{statistics.mean(values):.3f}" + ("" if width is None else f" ± {width:.3f}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_seed(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in values)
