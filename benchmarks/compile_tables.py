"""The committed compile reports, one per Triton that a supported torch installs, and the tables made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import markdown_table

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE.parent / "constraints.txt"
REPORTS = HERE / "results" / "compile_report"
SHOWN_CAPABILITY = 90
KIB = 1024
TORCH_OF_TRITON = {"3.6.0": "2.11", "3.7.1": "2.12, 2.13", "3.8.0": "2.14"}
"""Every Triton that the CUDA wheel of a supported torch asks for, and those releases of torch."""


def constrained_triton(constraints: Path = CONSTRAINTS) -> str:
    """The release of Triton that the project is tested with.

    Raises:
        ValueError: the file pins none.
    """
    found = re.search(r"^triton==(\S+)$", constraints.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{constraints.name} pins no triton; it needs a line such as triton==3.7.1")
    return found[1]


def committed_tables() -> str:
    """What every Triton makes of the kernels, and the constrained one's kernels for Hopper in full."""
    reports = {version: _read(version) for version in TORCH_OF_TRITON}
    version = constrained_triton()
    kernels = [kernel for kernel in reports[version]["kernels"] if kernel["capability"] == SHOWN_CAPABILITY]
    name = REPORTS.relative_to(HERE).as_posix()
    return (
        f"{versions_table(reports)}\n\nTriton {version} for sm_{SHOWN_CAPABILITY}; the other capabilities and releases"
        f" are in `{name}/`:\n\n{report_table(kernels)}"
    )


def versions_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A markdown table, one row per release of Triton and compute capability."""
    header = ["triton", "torch", "ptxas", "sm", "kernels", "faults", "spill", "most spilled B", "date"]
    rows = []
    for version, report in reports.items():
        for capability in sorted({kernel["capability"] for kernel in report["kernels"]}):
            kernels = [kernel for kernel in report["kernels"] if kernel["capability"] == capability]
            spilled = [kernel["spilled_bytes"] for kernel in kernels if kernel.get("spilled_bytes")]
            assembler = report["versions"]["ptxas-blackwell" if capability >= 100 else "ptxas"]
            faults = sum(f"sm_{capability} " in fault for fault in report["faults"])
            numbers = [len(kernels), faults, len(spilled), max(spilled, default=0)]
            cells = [version, TORCH_OF_TRITON.get(version, ""), assembler, str(capability)]
            rows.append([*cells, *map(str, numbers), report["date"]])
    return markdown_table(header, rows, right=range(3, 8))


def report_table(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """A markdown table, one row per kernel and capability, of the ``kernels`` of the JSON report."""
    header = ["kernel", "sm", "warps", "stages", "registers", "spilled B", "shared KiB", "instructions", "of which"]
    rows = [
        [outcome["name"], str(outcome["capability"]), *_cells(outcome)]
        for outcome in sorted(outcomes, key=lambda outcome: (outcome["name"], outcome["capability"]))
    ]
    return markdown_table(header, rows, right=range(1, 8))


def _cells(outcome: Mapping[str, Any]) -> list[str]:
    if "error" in outcome:
        return ["", "", "", "", "", "", "does not compile"]
    numbers = [str(outcome[name]) for name in ("num_warps", "num_stages", "registers", "spilled_bytes")]
    kinds = ", ".join(f"{kind} {count}" for kind, count in outcome["instructions"].items())
    return [*numbers, f"{outcome['shared_bytes'] / KIB:.1f}", str(outcome["num_instructions"]), kinds]


def _read(version: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((REPORTS / f"{version}.json").read_text())
    return report
