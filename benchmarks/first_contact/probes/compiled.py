"""Step C: without a GPU, the machine code of the kernel that matters most, then of every kernel for Hopper."""

from __future__ import annotations

import json
import os

from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import python_module, run_tool

CAPABILITY = "90"
MOST_IMPORTANT = "scan/tma/bfloat16/entropy"


def measure(record: Record) -> None:
    os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel is not compiled
    for only in (MOST_IMPORTANT, ""):
        record.at(f"compiling {only or 'all kernels'} for sm_{CAPABILITY}")
        file = record.path.with_suffix(".report.json")
        file.unlink(missing_ok=True)
        choice = ["--capability", CAPABILITY, "--json", str(file), *(["--only", only] if only else [])]
        done = run_tool(python_module("benchmarks.compile_report", *choice))
        if not file.exists():
            raise RuntimeError(f"compile_report ended with exit status {done.returncode}; see its output above")
        report = json.loads(file.read_text())
        record.put(
            versions=report["versions"],
            num_kernels=len(report["kernels"]),
            faults=report["faults"],
            is_whole=not only,
        )
