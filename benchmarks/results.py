"""Result files: JSON for machines, markdown for readers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.markdown import markdown_table

HEADER = ("provider", "ms (p20 to p80)", "TFLOP/s", "of bare product", "workspace MB", "errors", "remark")
_NUMBERS = (1, 2, 3, 4)


def save(folder: Path, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write ``<kernel>.json`` and ``<kernel>.md`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {**header, "rows": [row.as_dict() for row in rows]}
    stem = folder / str(header["kernel"])
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(as_markdown(found))


def summary(rows: Sequence[Row]) -> str:
    """The rows of one case as a table under a line that names it."""
    return case_table([row.as_dict() for row in rows])


def as_markdown(found: Mapping[str, Any]) -> str:
    """A result file's contents as a page: where it comes from, and one table per case."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    origin = (
        f"{found['device']}, {found['dtype']}; {versions}; {found['date']}, commit {found['commit'][:10]}; "
        f"`{found['command']}`. Workspace: {found['workspace']}."
    )
    tables = [case_table(case) for case in _cases(found["rows"])]
    return "\n\n".join([f"## {found['kernel']}", origin, *tables]) + "\n"


def _cases(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        cases.setdefault(f"{row['size']} {row['mode']}", []).append(row)
    return list(cases.values())


def case_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[int] = range(len(HEADER))) -> str:
    """The rows of one case as a table under a line that names it, with the ``columns`` of `HEADER` alone."""
    if not rows:
        return "No provider was asked for."
    title = f"**{rows[0]['kernel']}, {rows[0]['mode']}: {row_size(rows[0])}** (errors against {rows[0]['reference']})"
    known = [row for row in rows if row["errors"]]
    body = [[cells(row)[column] for column in columns] for row in known]
    right = [place for place, column in enumerate(columns) if column in _NUMBERS]
    table = markdown_table([HEADER[column] for column in columns], body, right) if known else "Nothing measured."
    return "\n\n".join([title, table, *_not_measured([row for row in rows if not row["errors"]])])


def _not_measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line of who has no numbers, those with the same reason together; empty where there is nobody."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(f"{row['status']}: {row['reason']}", []).append(row["provider"])
    lines = [f"{', '.join(providers)} ({reason})" for reason, providers in names.items()]
    return [f"Without numbers: {'; '.join(lines)}."] if lines else []


def row_size(row: Mapping[str, Any]) -> str:
    """``T 1024, K 8, D 2048, V 151936``."""
    size = row["size"]
    return f"T {size['tokens']}, K {size['teachers']}, D {size['width']}, V {size['vocabulary']}"


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    errors = ", ".join(f"{name} {error:.1e}" for name, error in row["errors"].items())
    if row["status"] != "measured":
        return [row["provider"], "", "", "", "", errors, f"{row['status']}: {row['reason']}"]
    time = row["milliseconds"]
    return [
        row["provider"],
        f"{time['median']:.3g} ({time['p20']:.3g} to {time['p80']:.3g})",
        f"{row['flops_per_second'] / 1e12:.3g}",
        f"{100 * row['share_of_bare_product']:.0f} %",
        f"{row['workspace_bytes'] / 1e6:.3g}",
        errors,
        row["note"],
    ]
