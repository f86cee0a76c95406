"""The picture of an audit: every item's share of helpful, neutral and misleading uses beside its usefulness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from sgsd_lightning.reports.demo_picture import POLARITY_COLORS, POLARITY_NAMES
from sgsd_lightning.skills.audit import AuditRow

MAX_ROWS = 60
ROW_HEIGHT = 0.26  # inches


def draw_evidence(rows: Sequence[AuditRow], path: Path) -> None:
    """Draw the items that were used, most useful on top; of very many the best and the worst ones.

    Raises:
        ValueError: if no item was ever used.
    """
    used = [row for row in rows if row.num_uses]
    if not used:
        raise ValueError("no item of this bank was ever used, so there is nothing to draw")
    shown = used if len(used) <= MAX_ROWS else [*used[: MAX_ROWS // 2], *used[-MAX_ROWS // 2 :]]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(12, 1.6 + ROW_HEIGHT * len(shown)), width_ratios=[1.2, 1], sharey=True, layout="constrained"
    )
    _draw_shares(left, shown)
    _draw_usefulness(right, shown)
    left.set_yticks(range(len(shown)), [_label(row) for row in shown], fontsize=8)
    left.set_ylim(len(shown) - 0.4, -0.6)
    if len(shown) < len(used):
        figure.suptitle(f"the {MAX_ROWS // 2} most and the {MAX_ROWS // 2} least useful of {len(used)} items")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw_shares(axes: Axes, rows: Sequence[AuditRow]) -> None:
    for place, row in enumerate(rows):
        start = 0.0
        for color, count in zip(POLARITY_COLORS.values(), row.polarity_counts, strict=True):
            axes.barh(place, count / row.num_uses, left=start, color=color, height=0.8)
            start += count / row.num_uses
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=color) for color in POLARITY_COLORS.values()]
    axes.legend(handles, POLARITY_NAMES.values(), ncols=3, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    axes.set(xlim=(0, 1), xlabel="share of the rollouts that its teachers scored")


def _draw_usefulness(axes: Axes, rows: Sequence[AuditRow]) -> None:
    values = [row.usefulness for row in rows]
    # rounding may put a value a hair outside its own interval
    low = [max(0.0, row.usefulness - row.usefulness_low) for row in rows]
    high = [max(0.0, row.usefulness_high - row.usefulness) for row in rows]
    axes.errorbar(values, range(len(rows)), xerr=[low, high], fmt="o", color="#1d4ed8", markersize=4, capsize=2)
    axes.axvline(0.5, color="#6b7280", linestyle="--", linewidth=1)
    axes.grid(axis="x", alpha=0.25)
    axes.set(xlim=(0, 1), xlabel="usefulness with its interval (0.5: no difference)")


def _label(row: AuditRow, width: int = 44) -> str:
    text = row.text if len(row.text) <= width else row.text[: width - 3].rstrip() + "..."
    # a dollar sign would start mathematics
    return f"{text}  {row.item_id}".replace("$", r"\$")
