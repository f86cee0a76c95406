"""The goals on one H200 that the kernels are built for, and what result files say of each.

They are stated for what the trainer calls: `linear_logprob` per teacher and, with its backward pass, per student, then
`gated_polarity` on [B, K, T]. `gated_polarity_head_loss` is measured beside it and counts for no goal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.cases import FORWARD, FROZEN, Size
from benchmarks.gated_head import AUTHORS, TRAINER
from benchmarks.markdown import markdown_table

NOT_MEASURED = "not measured on a GPU"
STATED_FOR = Size(tokens=1024, teachers=8, width=2048)
LARGEST = Size(tokens=16384, teachers=8, width=2048)
WORKSPACE_LIMIT_MB = 300
HEADER = ("goal", "wanted", "found")

Row = Mapping[str, Any]


def goals_table(gated_head: Mapping[str, Any] | None) -> str:
    """The goals with what a result file of the benchmark ``gated_head`` from a GPU says; None where there is none."""
    rows = [] if gated_head is None else gated_head["rows"]
    table = [
        [
            f"forward of the student, 8 teachers and the gate, share of the bare product's rate ({STATED_FOR})",
            "70 %, better 85 %",
            _forward_share(rows),
        ],
        [
            f"forward and backward, frozen head, times as fast as the authors' scheme ({STATED_FOR})",
            "2.2",
            _speed_up(rows),
        ],
        [f"runs where the authors' scheme is out of memory ({LARGEST})", "yes", _runs_beyond(rows)],
        [
            "workspace beyond inputs and gradients, the largest of all sizes",
            f"{WORKSPACE_LIMIT_MB} MB",
            _workspace(rows),
        ],
        ["time over the best peer's, the worst of all sizes", "1 at the most", _worst_ratio(rows)],
    ]
    return markdown_table(HEADER, table)


def _forward_share(rows: Sequence[Row]) -> str:
    best = _fastest(_ours(_case(rows, STATED_FOR, FORWARD)))
    return NOT_MEASURED if best is None else f"{100 * best['share_of_bare_product']:.0f} % ({best['provider']})"


def _speed_up(rows: Sequence[Row]) -> str:
    case = _case(rows, STATED_FOR, FROZEN)
    best, authors = _fastest(_ours(case)), _fastest(row for row in case if row["provider"] == AUTHORS)
    if best is None or authors is None:
        return NOT_MEASURED
    return f"{authors['milliseconds']['median'] / best['milliseconds']['median']:.2f} ({best['provider']})"


def _runs_beyond(rows: Sequence[Row]) -> str:
    case = _case(rows, LARGEST, FROZEN)
    authors = [row["status"] for row in case if row["provider"] == AUTHORS and row["status"] != "skipped"]
    if not authors:
        return NOT_MEASURED
    best = _fastest(_ours(case))
    ours = "no" if best is None else f"yes ({best['provider']})"
    return f"{ours}; the authors' scheme: {authors[0]}"


def _workspace(rows: Sequence[Row]) -> str:
    """Of the fastest implementation of each case, since that is the one that is used."""
    best = [_fastest(_ours(case)) for case in _cases(rows)]
    needed = [row["workspace_bytes"] for row in best if row is not None]
    return f"{max(needed) / 1e6:.0f} MB" if needed else NOT_MEASURED


def _worst_ratio(rows: Sequence[Row]) -> str:
    ratios = []
    for case in _cases(rows):
        best = _fastest(_ours(case))
        peer = _fastest(row for row in case if not row["provider"].startswith("sgsd_kernels"))
        if best is not None and peer is not None:
            ratio = best["milliseconds"]["median"] / peer["milliseconds"]["median"]
            ratios.append((ratio, f"{ratio:.2f} ({peer['provider']}, {Size(**peer['size'])}, {peer['mode']})"))
    return max(ratios)[1] if ratios else NOT_MEASURED


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
