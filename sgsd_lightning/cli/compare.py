"""`sgsd compare`: two evaluations of the same problems, problem by problem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from sgsd_lightning.cli.command_parser import CommandParser, require_folders
from sgsd_lightning.cli.output import cell, say

if TYPE_CHECKING:
    from sgsd_lightning.evaluation.comparison import Comparison


def main(arguments: Sequence[str]) -> None:
    """Print how much better the second is, how sure that is, and which problems changed.

    Raises:
        FileNotFoundError: for a folder without samples.
        ValueError: for evaluations that share no problem.
    """
    parser = CommandParser(prog="sgsd compare", description=__doc__)
    parser.add_argument("first", type=Path, help="folder of `sgsd evaluate`")
    parser.add_argument("second", type=Path, help="another, of the same problems")
    parser.add_argument("--changed", type=int, default=10, help="how many of the problems that changed are listed")
    parser.add_argument("--out", type=Path, help="write the comparison as JSON")
    options = parser.parse_args(list(arguments))
    if options.changed < 0:
        raise ValueError(f"sgsd compare: --changed must be 0 or more; got {options.changed}")
    require_folders((options.first, options.second), "folder of an evaluation")
    from sgsd_lightning.evaluation.comparison import changed_problems, compare
    from sgsd_lightning.evaluation.samples import load_samples

    first, second = load_samples(options.first), load_samples(options.second)
    found = compare(first, second)
    console = Console()
    console.print(_table(found, options.first.name, options.second.name))
    for mine, other in changed_problems(first, second)[: options.changed]:
        say(
            f"{mine.problem_set}/{mine.problem_id}: {mine.accuracy:.2f} -> {other.accuracy:.2f}, most frequent answer "
            f"{mine.most_frequent_answer} -> {other.most_frequent_answer} (right: {mine.reference_answer})"
        )
    if options.out is not None:
        content = [{**asdict(comparison), "interval": list(comparison.interval)} for comparison in found]
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _table(comparisons: Sequence[Comparison], first: str, second: str) -> Table:
    table = Table(
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
        caption="95 % by bootstrap over problems; ?: it holds 0; flipped: most frequent answers, to right, to wrong",
    )
    for column in ("problems", "n", first, second, "change", "95 %", "better", "worse", "flipped"):
        table.add_column(column, justify="left" if column == "problems" else "right", no_wrap=True)
    for comparison in comparisons:
        table.add_row(
            cell(comparison.problem_set),
            str(comparison.num_problems),
            f"{comparison.first:.3f}",
            f"{comparison.second:.3f}",
            f"{comparison.difference:+.3f}{'' if comparison.is_sure else '?'}",
            f"{comparison.interval.low:+.3f}..{comparison.interval.high:+.3f}",
            str(comparison.num_better),
            str(comparison.num_worse),
            f"+{comparison.num_gained} -{comparison.num_lost}",
        )
    return table
