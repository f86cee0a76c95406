"""A study's picture: learning curves of the methods and ablations, and one panel per sweep."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

Row = Mapping[str, Any]
LOGARITHMIC = ("number of teachers", "gate temperature")
NUM_COLUMNS = 4
COLORS = ("#1d4ed8", "#7ea6f8", "#0e9f6e", "#7fd6b4", "#dc2626", "#7c3aed", "#b45309", "#475569")


def draw_study(path: Path, summary: Mapping[str, Any]) -> None:
    """Draw one panel per group, in the order of the summary."""
    groups: dict[str, list[Row]] = {}
    for row in summary["rows"]:
        groups.setdefault(row["group"], []).append(row)
    num_rows = -(-len(groups) // NUM_COLUMNS)
    figure, panels = pyplot.subplots(
        num_rows,
        min(NUM_COLUMNS, len(groups)),
        figsize=(4.6 * min(NUM_COLUMNS, len(groups)), 4.2 * num_rows),
        layout="constrained",
        squeeze=False,
    )
    axes = list(panels.flat)
    for panel, (group, rows) in zip(axes, groups.items(), strict=False):
        (_draw_curves if rows[0]["setting"] is None else _draw_sweep)(panel, group, rows)
    for panel in axes[len(groups) :]:
        panel.set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_curves(axes: Axes, group: str, rows: Sequence[Row]) -> None:
    """The mean over seeds; a variant that is not trained is a line."""
    colors = iter(COLORS)
    for row in rows:
        curves = [curve for curve in row["curves"]["avg@k"] if curve]
        if not curves:
            axes.axhline(
                statistics.mean(row["plain"]["avg@k"]), color="#111827", linestyle="--", linewidth=1, label=row["name"]
            )
            continue
        steps = [step for step, _ in curves[0]]
        means = [statistics.mean(curve[i][1] for curve in curves) for i in range(min(map(len, curves)))]
        axes.plot(steps[: len(means)], means, label=row["name"], color=next(colors), linewidth=1.6)
    axes.set(title=group, xlabel="optimizer step", ylabel="validation avg@4, mean over seeds", ylim=(0, 1))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7.5, loc="lower right" if group == "methods" else "best")


def _draw_sweep(axes: Axes, group: str, rows: Sequence[Row]) -> None:
    """Every seed, whose base model differs, as a thin line; their mean as a thick one."""
    settings = [row["setting"] for row in rows]
    by_seed = list(zip(*(row["plain"]["avg@k"] for row in rows), strict=True))
    for of_seed in by_seed:
        axes.plot(settings, of_seed, color=COLORS[0], alpha=0.35, linewidth=1, marker="o", markersize=3)
    axes.plot(settings, [statistics.mean(row["plain"]["avg@k"]) for row in rows], color=COLORS[0], linewidth=2.2)
    if group in LOGARITHMIC:
        axes.set_xscale("log")
        axes.set_xticks(settings, [f"{setting:g}" for setting in settings], minor=False)
        axes.minorticks_off()
    axes.set(title=group, xlabel=group, ylabel="test avg@4, plain prompts", ylim=(0, 1))
    axes.grid(alpha=0.25)
