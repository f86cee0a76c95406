"""A picture of one kernel's results: rate over size, one line per provider, one panel per mode."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MARKERS = "osv^DPX*<>"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw the measured rows of a result file. Nothing is written where matplotlib or a measured row is missing."""
    rows = [row for row in found["rows"] if row["status"] == "measured"]
    if not rows or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    modes = list(dict.fromkeys(row["mode"] for row in rows))
    names = list(dict.fromkeys(row["provider"] for row in rows))
    figure = Figure(figsize=(4.6 * len(modes) + 3, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    for panel, mode in zip(panels, modes, strict=True):
        _draw_panel(panel, [row for row in rows if row["mode"] == mode], names)
        panel.set_title(mode, fontsize=9)
    panels[0].set_ylabel("required TFLOP / s")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    figure.suptitle(f"{found['kernel']} on {found['device']}, {found['dtype']}", fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_panel(panel: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        own = sorted((row for row in rows if row["provider"] == name), key=lambda row: row["required_flops"])
        panel.plot(
            [row["required_flops"] / 1e12 for row in own],
            [row["flops_per_second"] / 1e12 for row in own],
            marker=_MARKERS[index % len(_MARKERS)],
            color=f"C{index % 10}",
            linewidth=1,
            label=name,
        )
    bare = sorted((row["required_flops"], row["bare_product_flops_per_second"]) for row in rows)
    style = {"color": "black", "linestyle": "--", "linewidth": 1}
    panel.plot([flops / 1e12 for flops, _ in bare], [rate / 1e12 for _, rate in bare], label="bare product", **style)
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("required TFLOP")
