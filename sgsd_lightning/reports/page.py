"""`report.html`: everything a run left, on one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sgsd_lightning.reports.curves import RUN_COLORS, answered_panels, draw_curves, panel_svg
from sgsd_lightning.reports.evidence_picture import draw_evidence
from sgsd_lightning.reports.run_logs import RunLogs
from sgsd_lightning.reports.token_view import default_rollout, draw_tokens, viewed_rollout
from sgsd_lightning.skills.audit import AuditRow

FACTS = {
    "val/avg@k": "validation avg@k",
    "val/pass@k": "validation pass@k",
    "rollout/reward_mean": "training reward",
    "rollout/completion_tokens_mean": "completion tokens",
    "rollout/student_entropy": "entropy, nats",
    "objective/helpful_frac": "helpful",
    "objective/misleading_frac": "misleading",
}


def write_page(runs: Sequence[RunLogs], path: Path) -> list[Path]:
    """Write the page, and PNGs of its pictures into ``<name>_files`` beside it; returns what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(runs), encoding="utf-8")
    return [path, *_write_pictures(runs, path.with_name(f"{path.stem}_files"))]


def render(runs: Sequence[RunLogs]) -> str:
    """The page's HTML. What a model wrote stands in it as text, whatever it looks like."""
    environment = Environment(
        loader=PackageLoader("sgsd_lightning.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    panels = answered_panels(runs)
    return environment.get_template("report.html").render(
        runs=runs,
        colors=RUN_COLORS,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        panels=[(panel, Markup(panel_svg(panel, runs))) for panel in panels],
        facts=FACTS,
        summaries=[_summary(run) for run in runs],
        ledgers=[(run, [_ledger_row(row) for row in run.ledger]) for run in runs if run.ledger],
        rollouts=_rollouts(runs),
    )


def _summary(run: RunLogs) -> dict[str, Any]:
    """First, last and largest value of each fact."""
    values = {name: [value for _, value in run.curves[name]] for name in FACTS if name in run.curves}
    last_step = max(curve[-1][0] for curve in run.curves.values())
    return {
        "steps": last_step,
        "facts": {
            name: {"first": of_fact[0], "last": of_fact[-1], "largest": max(of_fact)}
            for name, of_fact in values.items()
        },
    }


def _ledger_row(row: AuditRow) -> dict[str, Any]:
    helpful, neutral, misleading = row.polarity_counts
    return {
        "row": row,
        "shares": [
            {"name": name, "percent": round(100 * count / row.num_uses, 2), "count": count}
            for name, count in (("helpful", helpful), ("neutral", neutral), ("misleading", misleading))
        ],
        "low": round(100 * row.usefulness_low, 1),
        "width": round(100 * (row.usefulness_high - row.usefulness_low), 1),
        "at": round(100 * row.usefulness, 1),
    }


def _rollouts(runs: Sequence[RunLogs]) -> list[Mapping[str, Any]]:
    """By run, in their order; the place of the one that is shown first is marked."""
    found: list[Mapping[str, Any]] = []
    for run in runs:
        chosen = default_rollout(run.rollouts)
        rows = [viewed_rollout(row) for row in run.rollouts]
        if rows:
            shown = next(place for place, row in enumerate(run.rollouts) if row is chosen)
            found.append({"run": run.name, "rows": rows, "shown": shown, "all": run.num_token_rollouts})
    return found


def _write_pictures(runs: Sequence[RunLogs], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    written = [folder / "curves.png"]
    draw_curves(runs, written[0])
    for run in runs:
        suffix = "" if len(runs) == 1 else f"-{run.name.replace('/', '-')}"
        if run.ledger:
            written.append(folder / f"ledger{suffix}.png")
            draw_evidence(run.ledger, written[-1])
        chosen = default_rollout(run.rollouts)
        if chosen is not None and chosen["teachers"]:
            written.append(folder / f"tokens{suffix}.png")
            draw_tokens(chosen, written[-1])
    return written
