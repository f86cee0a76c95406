"""The results for machines and for readers: ``first_contact.json`` and ``first_contact.md``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.first_contact.contact import Entry
from benchmarks.markdown import markdown_table

STEM = "first_contact"
UNSHOWN = ("at", "provenance")
TAIL_LINES = 12


def save(folder: Path, command: str, minutes: float, entries: Sequence[Entry]) -> None:
    """Write both files into ``folder``."""
    found = as_json(command, minutes, entries)
    (folder / f"{STEM}.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    (folder / f"{STEM}.md").write_text(as_markdown(found))


def as_json(command: str, minutes: float, entries: Sequence[Entry]) -> dict[str, Any]:
    """Where the results come from, as the first step found it, and every step with its verdict and measurements."""
    measured = [entry.attempt.found for entry in entries if entry.attempt is not None]
    made: Mapping[str, Any] = next((found["provenance"] for found in measured if "provenance" in found), {})
    found = {**made, "command": command, "minutes": minutes, "steps": [_step(entry) for entry in entries]}
    return {name: _strict(value) for name, value in found.items()}


def as_markdown(found: Mapping[str, Any]) -> str:
    """The page: the verdicts in a table, then what every step measured."""
    steps = found["steps"]
    rows = [[step["number"], step["title"], step["outcome"], step["sentence"], _seconds(step)] for step in steps]
    table = markdown_table(["step", "about", "outcome", "verdict", "s"], [[_cell(c) for c in row] for row in rows], [4])
    return "\n\n".join(["# First contact", origin(found), table, *filter(None, map(_details, steps))]) + "\n"


def origin(found: Mapping[str, Any]) -> str:
    """Device, versions, date, commit and command in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
    known = [found.get("device", "device unknown"), versions or "versions unknown", found.get("date", "date unknown")]
    return "; ".join([*known, f"commit {found.get('commit', 'unknown')[:10]}", f"`{found['command']}`"]) + "."


def _step(entry: Entry) -> dict[str, Any]:
    step, attempt = entry.step, entry.attempt
    head = {"number": step.number, "title": step.title, "probe": step.probe, "budget_seconds": step.seconds}
    verdict = {name: value for name, value in dataclasses.asdict(entry.verdict).items() if value}
    if attempt is None:
        return head | verdict
    is_bad = attempt.ending == "crashed" or entry.verdict.outcome == "bad"
    ending = {"ending": attempt.ending, "seconds": round(attempt.seconds, 1), "found": dict(attempt.found)}
    return head | verdict | ending | ({"tail": attempt.tail} if is_bad else {})


def _strict(value: Any) -> Any:
    """``value`` with numbers that JSON does not have as texts."""
    if isinstance(value, dict):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _details(step: Mapping[str, Any]) -> str:
    shown = [_shown(name, value) for name, value in step.get("found", {}).items() if name not in UNSHOWN]
    if "tail" in step:
        shown.append("```\n" + "\n".join(step["tail"].splitlines()[-TAIL_LINES:]).replace("```", "'''") + "\n```")
    return "\n\n".join([f"## {step['number']}. {step['title']}", *shown]) if shown else ""


def _shown(name: str, value: Any) -> str:
    label = name.replace("_", " ")
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        header = list(dict.fromkeys(key for row in value for key in row))
        body = [[_cell(row.get(key, "")) for key in header] for row in value]
        return f"{label}:\n\n{markdown_table([key.replace('_', ' ') for key in header], body)}"
    if isinstance(value, list):
        value = ", ".join(map(_cell, value)) or "none"
    elif isinstance(value, dict):
        value = ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{label}: {_cell(value)}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return " ".join(str(value).replace("|", "\\|").split())


def _seconds(step: Mapping[str, Any]) -> str:
    return f"{step['seconds']:.0f}" if "seconds" in step else ""
