"""Short runs by another commit and by this tree: are all numbers the same, bit for bit?

    python -m benchmarks.same_numbers --against ac011bc
    python -m benchmarks.same_numbers --against main --only sgsd,grpo --out runs/same_numbers

The other commit is checked out in a temporary folder; both trees run in this Python environment, on this machine's CPU.
Losses (metrics.csv without times and memory), tables, banks, evaluation and checkpoints (weights, optimizer) are
compared. Renamed keys are mapped by `renames.py`. The exit status is 1 where anything is different, 2 for bad input.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.same_numbers.compare import Comparison, compare
from benchmarks.same_numbers.renames import MAY_VANISH
from benchmarks.same_numbers.results import read_results
from benchmarks.same_numbers.runs import RUN_FOLDER, RUNS, Run, selected
from benchmarks.same_numbers.trees import REPOSITORY, Tree, commit_of, execute, other_tree, this_tree


@dataclass(frozen=True, slots=True)
class Verdict:
    """The line about one run, and what only one of the trees has."""

    text: str
    is_fault: bool = False
    comparison: Comparison | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, a line per run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_numbers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="REV", help="the other commit")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(run.name for run in RUNS))
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep what both trees wrote: FOLDER/old, FOLDER/new")
    options = parser.parse_args(arguments)
    try:
        runs, commit = selected(options.only), commit_of(options.against)
    except ValueError as error:
        print(f"same_numbers: error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)  # so that the other tree is removed
    try:
        with tempfile.TemporaryDirectory(prefix="same-numbers-out-") as scratch, other_tree(commit) as other:
            return _compare_all(runs, other, this_tree(), (options.out or Path(scratch)).resolve())
    except KeyboardInterrupt:
        print("same_numbers: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"same_numbers: error: {error}", file=sys.stderr)
        return 2


def _compare_all(runs: Sequence[Run], old: Tree, new: Tree, out: Path) -> int:
    for tree in (old, new):
        tree.check_imports()
    verdicts = []
    for run in runs:
        start = time.perf_counter()
        verdict = _judge(run, old, new, out)
        print(f"{run.name:14s} {verdict.text}  [{time.perf_counter() - start:.0f} s]", flush=True)
        verdicts.append(verdict)
    comparisons = [verdict.comparison for verdict in verdicts if verdict.comparison]
    _print_names("only in the old tree", [name for comparison in comparisons for name in comparison.only_old])
    _print_names("only in the new tree", [name for comparison in comparisons for name in comparison.only_new])
    return int(any(verdict.is_fault for verdict in verdicts))


def _judge(run: Run, old: Tree, new: Tree, out: Path) -> Verdict:
    """Run it by both trees and compare what they left."""
    reason = run.reason_to_skip(REPOSITORY.parent)
    if reason:
        return Verdict(f"skipped because {reason}")
    results = []
    for tree in (old, new):
        folder = out / tree.label / run.name
        failure = execute(run, tree, folder)
        if failure:
            return Verdict(failure, is_fault=True)
        results.append(read_results(folder / RUN_FOLDER, tree.names))
    comparison = compare(results[0], results[1], MAY_VANISH)
    if comparison.first is None:
        return Verdict(f"same ({comparison.num_values} values)", comparison=comparison)
    text = f"differs at {comparison.first}"
    if run.may_differ:
        text += f" (may differ: {run.may_differ})"
    return Verdict(text, is_fault=not run.may_differ, comparison=comparison)


def _print_names(title: str, names: Sequence[str]) -> None:
    """Each name once, if there are any."""
    if names:
        print(f"{title}:")
        for name in dict.fromkeys(names):
            print(f"  {name}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
