"""The goals on one H200 that the kernels are built for, and what result files say of each.

They are stated for what the trainer calls: `linear_logprob` with entropies, of the teachers and, with its backward
pass, of the student, then `gated_polarity` on [B, K, T]. `gated_polarity_head_loss` is measured beside it and counts
for no goal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import FORWARD, FROZEN, Size
from benchmarks.gated_head import AUTHORS, TRAINER
from benchmarks.markdown import markdown_table

NOT_MEASURED = "not measured on a GPU"
STATED_FOR = Size(tokens=1024, teachers=8, width=2048)
LARGEST = Size(tokens=16384, teachers=8, width=2048)
FORWARD_SHARE = 0.7
SPEED_UP = 2.2
WORKSPACE_LIMIT_MB = 300
HEADER = ("goal", "wanted", "found")

Row = Mapping[str, Any]
_Found = tuple[str, bool]
"""What was found, and whether it meets the goal."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, what was found, and whether that meets it; None where it was not measured."""

    name: str
    wanted: str
    found: str
    is_met: bool | None


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Every goal with what ``rows`` of the benchmark ``gated_head`` from a GPU say of it."""
    return [
        _goal(
            f"forward of the student, 8 teachers and the gate, share of the bare product's rate ({STATED_FOR})",
            f"{100 * FORWARD_SHARE:.0f} %, better 85 %",
            _forward_share(rows),
        ),
        _goal(
            f"forward and backward, frozen head, times as fast as the authors' scheme ({STATED_FOR})",
            f"{SPEED_UP}",
            _speed_up(rows),
        ),
        _goal(f"runs where the authors' scheme is out of memory ({LARGEST})", "yes", _runs_beyond(rows)),
        _goal(
            "workspace beyond inputs and gradients, the largest of all sizes",
            f"{WORKSPACE_LIMIT_MB} MB",
            _workspace(rows),
        ),
        _goal("time over the best peer's, the worst of all sizes", "1 at the most", _worst_ratio(rows)),
    ]


def goals_table(gated_head: Mapping[str, Any] | None) -> str:
    """The goals with what a result file of the benchmark ``gated_head`` from a GPU says; None where there is none."""
    found = goals([] if gated_head is None else gated_head["rows"])
    return markdown_table(HEADER, [[goal.name, goal.wanted, goal.found] for goal in found])


def _goal(name: str, wanted: str, found: _Found | None) -> Goal:
    return Goal(name, wanted, NOT_MEASURED, None) if found is None else Goal(name, wanted, *found)


def _forward_share(rows: Sequence[Row]) -> _Found | None:
    best = _fastest(_ours(_case(rows, STATED_FOR, FORWARD)))
    if best is None:
        return None
    share = best["share_of_bare_product"]
    return f"{100 * share:.0f} % ({best['provider']})", share >= FORWARD_SHARE


def _speed_up(rows: Sequence[Row]) -> _Found | None:
    case = _case(rows, STATED_FOR, FROZEN)
    best, authors = _fastest(_ours(case)), _fastest(row for row in case if row["provider"] == AUTHORS)
    if best is None or authors is None:
        return None
    ratio = authors["milliseconds"]["median"] / best["milliseconds"]["median"]
    return f"{ratio:.2f} ({best['provider']})", ratio >= SPEED_UP


def _runs_beyond(rows: Sequence[Row]) -> _Found | None:
    case = _case(rows, LARGEST, FROZEN)
    authors = [row["status"] for row in case if row["provider"] == AUTHORS and row["status"] != "skipped"]
    if not authors:
        return None
    best = _fastest(_ours(case))
    ours = "no" if best is None else f"yes ({best['provider']})"
    return f"{ours}; the authors' scheme: {authors[0]}", best is not None


def _workspace(rows: Sequence[Row]) -> _Found | None:
    """Of the fastest implementation of each case, since that is the one that is used."""
    best = [_fastest(_ours(case)) for case in _cases(rows)]
    needed = max((row["workspace_bytes"] for row in best if row is not None), default=None)
    return None if needed is None else (f"{needed / 1e6:.0f} MB", needed <= 1e6 * WORKSPACE_LIMIT_MB)


def _worst_ratio(rows: Sequence[Row]) -> _Found | None:
    worst: tuple[float, str] | None = None
    for case in _cases(rows):
        best = _fastest(_ours(case))
        peer = _fastest(row for row in case if not row["provider"].startswith("sgsd_kernels"))
        if best is not None and peer is not None:
            ratio = best["milliseconds"]["median"] / peer["milliseconds"]["median"]
            text = f"{ratio:.2f} ({peer['provider']}, {Size(**peer['size'])}, {peer['mode']})"
            worst = max(worst or (0.0, ""), (ratio, text))
    return None if worst is None else (worst[1], worst[0] <= 1)


def _case(rows: Iterable[Row], size: Size, mode: str) -> list[Row]:
    return [row for row in rows if Size(**row["size"]) == size and row["mode"] == mode]


def _cases(rows: Sequence[Row]) -> list[list[Row]]:
    keys = dict.fromkeys((Size(**row["size"]), row["mode"]) for row in rows)
    return [_case(rows, size, mode) for size, mode in keys]


def _is_ours(row: Row) -> bool:
    """Whether one of our implementations was called as the trainer calls it."""
    provider = row["provider"]
    return bool(provider.startswith("sgsd_kernels") and provider.endswith(TRAINER))


def _ours(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if _is_ours(row)]


def _fastest(rows: Iterable[Row]) -> Row | None:
    measured = [row for row in rows if row["status"] == "measured"]
    return min(measured, key=lambda row: row["milliseconds"]["median"], default=None)
