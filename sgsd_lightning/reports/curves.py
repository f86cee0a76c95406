"""A run's curves, one panel per question, all runs in each: as SVG for a page and as PNG for a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgsd_lightning.reports.run_logs import Curve, RunLogs

RUN_COLORS = ("#3b7ddd", "#d9622b", "#16a085", "#9b59b6", "#c0392b", "#7f8c8d", "#b7950b", "#5d6d7e")
"""Legible on white and on black."""
LINE_STYLES = ("-", "--", ":")
INK = "#010203"
"""Stands for the page's own text colour until the SVG is made part of it."""
SMOOTHED_OVER = 0.05
"""Of a curve's points, the share that its mean runs over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A question, and the metrics that answer it."""

    title: str
    unit: str
    metrics: Mapping[str, str]
    """Metric to what it is called, at most three."""
    is_share: bool = False
    """Whether it lies between 0 and 1."""


PANELS = (
    Panel(
        title="Accuracy on the validation problems",
        unit="share of samples or problems",
        metrics={"val/avg@k": "avg@k", "val/pass@k": "pass@k", "val/majority@k": "majority@k"},
        is_share=True,
    ),
    Panel(title="Reward of the training rollouts", unit="mean", metrics={"rollout/reward_mean": "reward"}),
    Panel(
        title="What the verifier made of the teachers",
        unit="share of teachers",
        metrics={
            "objective/helpful_frac": "helpful",
            "objective/misleading_frac": "misleading",
            "objective/neutral_frac": "neutral",
        },
        is_share=True,
    ),
    Panel(
        title="Length of completions",
        unit="tokens",
        metrics={
            "rollout/completion_tokens_mean": "all",
            "rollout/completion_tokens_accepted_mean": "accepted",
            "rollout/completion_tokens_rejected_mean": "rejected",
        },
    ),
    Panel(title="Entropy of the student", unit="nats a token", metrics={"rollout/student_entropy": "student"}),
    Panel(
        title="Signs of trouble",
        unit="share of rollouts",
        metrics={
            "rollout/truncated_frac": "truncated",
            "rollout/repetition_frac": "repeated 4-grams",
            "rollout/equal_rewards_frac": "problems with equal rewards",
        },
        is_share=True,
    ),
    Panel(title="Loss", unit="nats", metrics={"objective/loss": "loss"}),
    Panel(title="Time of a step", unit="ms", metrics={"time/step_ms": "step"}),
)


def answered_panels(runs: Sequence[RunLogs]) -> list[Panel]:
    """Return the panels for which at least one run has a metric."""
    return [panel for panel in PANELS if any(name in run.curves for run in runs for name in panel.metrics)]


def panel_svg(panel: Panel, runs: Sequence[RunLogs]) -> str:
    """An ``<svg>`` element whose text takes the colour of the page around it."""
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": panel.title,
            "font.family": "sans-serif",
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        figure = _figure([panel], runs, num_columns=1)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    text = written.getvalue()
    opening, rest = text[text.index("<svg") :].split(">", maxsplit=1)
    # the page says how large it is
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{panel.title}">{rest.replace(INK, "currentColor")}'


def draw_curves(runs: Sequence[RunLogs], path: Path) -> None:
    """All panels in one PNG."""
    figure = _figure(answered_panels(runs), runs, num_columns=2)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def smoothed(curve: Curve) -> list[tuple[int, float]]:
    """The mean over a centred window, shorter at the ends."""
    half = int(SMOOTHED_OVER * len(curve) / 2)
    means = []
    for place, (step, _) in enumerate(curve):
        reach = min(half, place, len(curve) - 1 - place)
        window = curve[place - reach : place + reach + 1]
        means.append((step, sum(value for _, value in window) / len(window)))
    return means


def _figure(panels: Sequence[Panel], runs: Sequence[RunLogs], num_columns: int) -> Figure:
    num_rows = -(-len(panels) // num_columns)
    figure, grid = pyplot.subplots(
        num_rows, num_columns, figsize=(5.0 * num_columns, 3.0 * num_rows), layout="constrained", squeeze=False
    )
    axes = list(grid.flat)
    for place, panel in zip(axes, panels, strict=False):
        _draw(place, panel, runs, has_title=len(panels) > 1)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    return figure


def _draw(axes: Axes, panel: Panel, runs: Sequence[RunLogs], has_title: bool) -> None:
    for number, run in enumerate(runs):
        color = RUN_COLORS[number % len(RUN_COLORS)]
        for style, (metric, called) in zip(LINE_STYLES, panel.metrics.items(), strict=False):
            curve = run.curves.get(metric)
            if not curve:
                continue
            label = called if len(runs) == 1 else f"{run.name}: {called}"
            if len(runs) == 1:
                color = RUN_COLORS[LINE_STYLES.index(style)]
            marker = "o" if len(curve) <= 25 else None
            if len(curve) > 40:
                axes.plot(*zip(*curve, strict=True), color=color, alpha=0.2, linewidth=0.8)
            axes.plot(
                *zip(*smoothed(curve), strict=True),
                color=color,
                linestyle=style if len(runs) > 1 else "-",
                marker=marker,
                markersize=3,
                linewidth=1.6,
                label=label,
            )
    axes.set(xlabel="optimizer step", ylabel=panel.unit, title=panel.title if has_title else "")
    if panel.is_share:
        axes.set_ylim(-0.02, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
