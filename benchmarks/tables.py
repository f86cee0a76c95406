"""Write the tables of ``benchmarks/README.md`` from the committed result files.

    python -m benchmarks.tables [--check]

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. With ``--check`` nothing is written; the exit
status is 1 where a table is not what the result files say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    accuracy,
    chunk_sweep,
    compile_tables,
    evidence,
    merge_banks,
    retrieval,
    rollouts,
    shared_prompts,
    step_report,
    step_rollouts,
)
from benchmarks.cases import TRAINED
from benchmarks.goals import NOT_MEASURED, goals_table
from benchmarks.markdown import markdown_table
from benchmarks.results import case_table, row_size
from sgsd_lightning.cli.study import summary as study_summary

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
RESULTS = HERE / "results"
KERNELS = ("gated_head", "linear_logprob", "linear_divergence_jsd", "linear_divergence_forward_kl", "local_support")
SHOWN_WIDTH = 2048
CPU_COLUMNS = (0, 1, 4, 5, 6)


def goals() -> str:
    """The goals, with numbers from a GPU's result file if there is one."""
    return goals_table(_gpu_result("gated_head"))


def gpu_tables() -> str:
    """Milliseconds and share of the bare product, one table per kernel and mode."""
    return "\n\n".join(_pivots(name) for name in KERNELS)


def cpu_tables() -> str:
    """Errors and workspaces of the small run on a CPU, trained heads."""
    parts = []
    for name in KERNELS:
        found = _read(RESULTS / "kernels_cpu" / f"{name}.json")
        rows = [] if found is None else [row for row in found["rows"] if row["mode"] == TRAINED]
        parts.append(case_table(rows, CPU_COLUMNS) if rows else f"**{name}**: no result file.")
    origin = _read(RESULTS / "kernels_cpu" / f"{KERNELS[0]}.json")
    return "\n\n".join([*parts, *([] if origin is None else [_origin(origin)])])


def accuracy_table() -> str:
    """Errors against float64 at the vocabulary of Qwen3."""
    return _on_both("accuracy_cpu", "accuracy_cuda", accuracy.table)


def train_step_table() -> str:
    """Ours beside the authors' scheme."""
    return _on_both("train_step_cpu", "train_step", lambda found: step_report.table(found["rows"]))


def rollouts_table() -> str:
    """Tokens per second of the engine beside transformers' own ways."""
    return _on_both("rollouts_cpu", "rollouts", rollouts.as_markdown)


def shared_prompts_table() -> str:
    """What computing shared prompts once saves."""
    found = _read(RESULTS / "shared_prompts_cpu.json")
    if found is None:
        return f"**shared prompts**: {NOT_MEASURED}."
    rows = [shared_prompts.Found(**{k: v for k, v in row.items() if k != "time_saved_frac"}) for row in found["rows"]]
    return f"{shared_prompts.table(rows)}\n\n{_origin(found)}"


def demo_table() -> str:
    """avg@4 of every method of the demo, a row each seed."""
    found = _read(RESULTS / "demo_seeds.json")
    if found is None:
        return "**demo**: not measured."
    by_seed = {seed: summary["methods"] for seed, summary in found["seeds"].items()}
    names = list(next(iter(by_seed.values())))
    rows = [[seed, *(f"{methods[name]['avg@k']:.3f}" for name in names)] for seed, methods in by_seed.items()]
    table = markdown_table(["seed", *names], rows, right=range(1, len(names) + 1))
    again = found["again"]
    return (
        f"{table}\n\n`{found['command']}`, {found['date']}; {found['machine']}; commit {found['commit'][:10]}. "
        f"{' and '.join(again['methods'])} again on {again['machine']}: {again['found']}."
    )


def study_tables(name: str) -> str:
    """The paper's table at toy scale, ablations and sweeps, as far as a result file holds them."""
    found = _read(RESULTS / f"{name}.json")
    if found is None:
        return f"**{name}**: not measured."
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    origin = f"`{found['command']}`, {found['max_steps']} steps, {found['date']}; {found['machine']}; {versions}."
    return f"{study_summary.tables(found)}\n\n{origin}"


def _whole(name: str, table: Callable[[dict[str, Any]], str], absent: str = "not measured") -> str:
    """A table of one result file, with where it comes from."""
    found = _read(RESULTS / f"{name}.json")
    return f"**{name}**: {absent}." if found is None else f"{table(found)}\n\n{_origin(found)}"


def _on_both(cpu: str, gpu: str, table: Callable[[dict[str, Any]], str]) -> str:
    """The table of a CPU's result file and that of a GPU's, or that there is none."""
    parts = []
    for name, device in ((cpu, "CPU"), (gpu, "GPU")):
        found = _read(RESULTS / f"{name}.json")
        absent = f"**A {device}**: not measured on a {device}."
        parts += [absent] if found is None else [table(found), _origin(found)]
    return "\n\n".join(parts)


TABLES: Mapping[str, Callable[[], str]] = {
    "goals": goals,
    "gpu": gpu_tables,
    "cpu": cpu_tables,
    "accuracy": accuracy_table,
    "compile report": compile_tables.committed_tables,
    "chunk sweep": lambda: _whole("chunk_sweep", chunk_sweep.table, NOT_MEASURED),
    "train step": train_step_table,
    "rollouts": rollouts_table,
    "step rollouts": lambda: _whole("step_rollouts_cpu", step_rollouts.table),
    "shared prompts": shared_prompts_table,
    "evidence": lambda: _whole("evidence", evidence.table),
    "merge banks": lambda: _whole("merge_banks", merge_banks.table),
    "demo": demo_table,
    "study methods": lambda: study_tables("study_methods"),
    "study": lambda: study_tables("study_toy"),
    "retrieval": lambda: _whole("retrieval_cpu", retrieval.table),
}


def filled(text: str) -> str:
    """``text`` with every marked table replaced.

    Raises:
        ValueError: markers without a table of that name.
    """

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise ValueError(f"README.md marks a table {name!r}; there are {', '.join(TABLES)}")
        return f"<!-- begin {name} -->\n\n{TABLES[name]()}\n\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (?P<name>[\w ]+) -->.*?<!-- end (?P=name) -->", replacement, text, flags=re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the README, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is stale")
    options = parser.parse_args(arguments)
    text = README.read_text()
    wanted = filled(text)
    if options.check:
        if text != wanted:
            print("benchmarks/README.md is stale; run python -m benchmarks.tables")
        return int(text != wanted)
    README.write_text(wanted)
    return 0


def _pivots(name: str) -> str:
    found = _gpu_result(name)
    if found is None:
        return f"**{name}**: {NOT_MEASURED}."
    rows = [row for row in found["rows"] if row["size"]["width"] == SHOWN_WIDTH]
    modes = dict.fromkeys(row["mode"] for row in rows)
    return "\n\n".join([*(_pivot(name, mode, rows) for mode in modes), _origin(found)])


def _pivot(name: str, mode: str, rows: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for row in rows if row["mode"] == mode]
    sizes = dict.fromkeys(row_size(row) for row in rows)
    cells = {(row["provider"], row_size(row)): _pivot_cell(row) for row in rows}
    header = ["ms (share of the bare product)", *sizes]
    body = [
        [provider, *(cells.get((provider, size), "") for size in sizes)]
        for provider in dict.fromkeys(row["provider"] for row in rows)
    ]
    return f"**{name}, {mode}**\n\n{markdown_table(header, body, right=range(1, len(header)))}"


def _pivot_cell(row: Mapping[str, Any]) -> str:
    if row["status"] != "measured":
        return str(row["status"])
    return f"{row['milliseconds']['median']:.3g} ({100 * row['share_of_bare_product']:.0f} %)"


def _origin(found: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"`{found['command']}` on {found['device']}, {found['date']}; {versions}; commit {found['commit'][:10]}."


def _gpu_result(name: str) -> dict[str, Any] | None:
    return _read(RESULTS / "kernels" / f"{name}.json")


def _read(path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


if __name__ == "__main__":
    sys.exit(main())
