"""The training step's results for readers: a table, and time and memory against teachers and length."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import markdown_table

HEADER = (
    "model",
    "teachers",
    "longest completion",
    "scheme",
    "ms (p20 to p80)",
    "times ours",
    "peak MB",
    "GFLOP",
    "tokens",
    "padding",
)
PANELS = {
    "contexts": ("num_contexts", "teachers"),
    "completion": ("completion_tokens", "longest completion, tokens"),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a size and scheme."""
    ours = {_key(row): row for row in rows if row["scheme"] == "ours"}
    return markdown_table(HEADER, [_cells(row, ours.get(_key(row))) for row in rows], right=(1, 2, 4, 5, 6, 7, 8, 9))


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["model"], row["sweep"], *row["size"].values())


def _cells(row: Mapping[str, Any], ours: Mapping[str, Any] | None) -> list[str]:
    size = row["size"]
    start = [row["model"], str(size["num_contexts"]), str(size["completion_tokens"]), row["scheme"]]
    end = [str(row["num_tokens"]), f"{100 * row['padding_frac']:.0f} %"]
    if row["status"] != "measured":
        return [*start, row["status"], "", "", "", *end]
    ms = row["ms"]
    ratio = f"{ms['median'] / ours['ms']['median']:.1f}" if ours and "ms" in ours else ""
    return [
        *start,
        f"{ms['median']:.4g} ({ms['p20']:.4g} to {ms['p80']:.4g})",
        ratio,
        f"{row['peak_bytes'] / 1e6:.4g}",
        f"{row['flops'] / 1e9:.4g}",
        *end,
    ]


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Seconds above, peak memory below; a column for each sweep, of the first model. Needs matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    model = found["rows"][0]["model"]
    rows = [row for row in found["rows"] if row["model"] == model and row["status"] == "measured"]
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(PANELS), squeeze=False)
    for column, (sweep, (name, label)) in enumerate(PANELS.items()):
        for index, scheme in enumerate(("authors' scheme", "ours")):
            own = [row for row in rows if row["sweep"] == sweep and row["scheme"] == scheme]
            where = [row["size"][name] for row in own]
            style = {"marker": "o", "color": f"C{index}", "label": scheme}
            panels[0][column].plot(where, [row["ms"]["median"] / 1e3 for row in own], **style)
            panels[1][column].plot(where, [row["peak_bytes"] / 1e6 for row in own], **style)
        for panel in (panels[0][column], panels[1][column]):
            panel.set_xscale("log", base=2)
            panel.set_ylim(bottom=0)
            panel.set_xlabel(label)
            panel.xaxis.set_major_formatter("{x:.0f}")
    panels[0][0].set_ylabel("seconds a step")
    panels[1][0].set_ylabel("peak memory, MB")
    panels[0][0].legend()
    figure.suptitle(f"scoring, loss and backward pass: {model} model on {found['device']}", fontsize=10)
    figure.savefig(path, dpi=110)
