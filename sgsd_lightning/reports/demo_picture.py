"""The demo's picture: accuracy while training, and what the verifier made of every item of the bank."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sgsd_lightning.toy import load_toy_bank

TRUTH_COLORS = {"helpful": "#1b7f4b", "irrelevant": "#6b7280", "misleading": "#b42318"}
POLARITY_COLORS = {1: "#6fc79b", 0: "#e5e7eb", -1: "#f0a199"}
POLARITY_NAMES = {1: "helpful", 0: "neutral", -1: "misleading"}
METHOD_COLORS = {
    "sgsd": "#1d4ed8",
    "sgsd+growing": "#0e9f9a",
    "imitate": "#c2410c",
    "base": "#111827",
    "base+skill": "#7c3aed",
}


def draw_demo(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Draw ``demo.png`` from the logs of a demo's runs; returns its path."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 6), width_ratios=[1, 1.15], layout="constrained")
    _draw_accuracy(left, folder, summary)
    _draw_polarity(right, count_polarity(folder / "sgsd" / "rollouts.jsonl"))
    path = folder / "demo.png"
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def validation_curve(run_folder: Path) -> list[tuple[int, float]]:
    """(optimizer step, avg@k) at every validation of a run, from its newest metrics file."""
    versions = sorted((run_folder / "metrics").glob("version_*"), key=lambda path: int(path.name.split("_")[1]))
    points: dict[int, float] = {}
    for version in versions:
        file = version / "metrics.csv"
        if not file.is_file():
            continue
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row.get("val/avg@k"):
                    points[int(row["step"]) + 1] = float(row["val/avg@k"])
    return sorted(points.items())


def count_polarity(rollouts_file: Path) -> dict[str, Counter[int]]:
    """Of every item of the bank: how often its teacher was helpful (+1), neutral (0) and misleading (-1)."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    with rollouts_file.open(encoding="utf-8") as lines:
        for line in lines:
            for teacher in json.loads(line)["teachers"]:
                for item in teacher["sources"]:
                    counts[item][teacher["polarity"]] += 1
    return dict(counts)


def _draw_accuracy(axes: Axes, folder: Path, summary: Mapping[str, Any]) -> None:
    base = summary["methods"]["base"]["avg@k"]
    for name in ("sgsd", "sgsd+growing", "imitate"):
        curve = validation_curve(folder / name)
        if not curve:  # a demo of fewer steps than lie between two evaluations
            continue
        axes.plot(
            *zip(*curve, strict=True),
            color=METHOD_COLORS[name],
            marker="o",
            markersize=3.5,
            label=f"{name} (validation)",
        )
        axes.annotate(
            f"{summary['methods'][name]['avg@k']:.2f} on test",
            xy=curve[-1],
            xytext=(-6, -16 if name == "sgsd+growing" else 9),
            textcoords="offset points",
            ha="right",
            color=METHOD_COLORS[name],
        )
    for name, style in (("base", "--"), ("base+skill", ":")):
        value = summary["methods"][name]["avg@k"]
        axes.axhline(
            value,
            color=METHOD_COLORS[name],
            linestyle=style,
            linewidth=1.2,
            label=f"{name} (test, {value:.2f})",
        )
    axes.set(
        title=f"Accuracy while training (sgsd {summary['methods']['sgsd']['avg@k'] - base:+.2f} against base)",
        xlabel="optimizer step",
        ylabel=f"avg@{summary['samples_per_problem']} at T = 1, plain prompts",
        ylim=(0, 1),
    )
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", fontsize=8)


def _draw_polarity(axes: Axes, counts: Mapping[str, Counter[int]]) -> None:
    items = _bank_items()
    order = [item for truth in TRUTH_COLORS for item in items if items[item][1] == truth and item in counts]
    for row, item in enumerate(order):
        start = 0.0
        for polarity, color in POLARITY_COLORS.items():
            width = counts[item][polarity] / counts[item].total()
            axes.barh(row, width, left=start, color=color, edgecolor="white", linewidth=0.5)
            start += width
    axes.set_yticks(range(len(order)), [f"{items[item][0]}  {item}" for item in order], fontsize=7.5)
    for label, item in zip(axes.get_yticklabels(), order, strict=True):
        label.set_color(TRUTH_COLORS[items[item][1]])
    axes.invert_yaxis()
    axes.set(
        title="How often each bank item's teacher was ...",
        xlabel="share of its teachers (training)",
        xlim=(0, 1),
    )
    polarity_patches = [Patch(color=POLARITY_COLORS[value], label=name) for value, name in POLARITY_NAMES.items()]
    truth_patches = [Patch(color=color, label=f"truth: {name}") for name, color in TRUTH_COLORS.items()]
    axes.legend(
        handles=polarity_patches + truth_patches,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.09),
        ncols=6,
        fontsize=7.5,
    )


def _bank_items() -> dict[str, tuple[str, str]]:
    """Id to (short text, truth) of every item of the toy bank."""
    bank = load_toy_bank()
    skills = {item["skill_id"]: (item["title"], item["toy_truth"]) for item in bank["general_skills"]}
    mistakes = {item["mistake_id"]: (item["description"], item["toy_truth"]) for item in bank["common_mistakes"]}
    return {key: (_clip(text), truth) for key, (text, truth) in {**skills, **mistakes}.items()}


def _clip(text: str, width: int = 38) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."
