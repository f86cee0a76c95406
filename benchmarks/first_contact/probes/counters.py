"""Step 7: what the hardware counted in one launch of the scan and one of the logits' gradient, by Nsight Compute."""

from __future__ import annotations

import contextlib
import csv
import io
import re

from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import find_tool, python_module, run_tool

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "MemoryWorkloadAnalysis_Tables")
WORKLOAD = python_module("benchmarks.first_contact.probes.workload", "9216", "2048", "151936")
KERNELS = ("scan_kernel", "dlogits_kernel")
PREFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
REFUSED = "ERR_NVGPUCTRPERM"


def measure(record: Record) -> None:
    tools = find_tool("ncu")
    record.put(has_tool=bool(tools))
    if not tools:
        return
    sections = [part for section in SECTIONS for part in ("--section", section)]
    for kernel in KERNELS:
        record.at(f"ncu, {kernel}")
        choice = ["--clock-control", "none", "-k", f"regex:{kernel}", "-c", "1", "--csv", "--page", "raw"]
        done = run_tool([tools[0], *choice, *sections, *WORKLOAD])
        if REFUSED in done.text:
            record.put(is_refused=True)
            return
        record.add("kernels", {"kernel": kernel, **counters_of(done.text)})


def counters_of(text: str) -> dict[str, float | None]:
    """The few numbers that the verdict reads, of the raw page of one launch; None for what is not in it."""
    values = raw_page(text)

    def first(pattern: str) -> float | None:
        return next((value for name, value in values.items() if re.fullmatch(pattern, name)), None)

    tensor = [v for name, v in values.items() if re.search(r"pipe_tensor.*pct_of_peak_sustained_active$", name)]
    seconds = first(r"gpu__time_duration\.sum")
    rate = first(r"dram__bytes\.sum\.per_second")
    requests = first(r"l1tex__t_requests_pipe_lsu_mem_global_op_st\.sum")
    sectors = first(r"l1tex__t_sectors_pipe_lsu_mem_global_op_st\.sum")
    return {
        "tensor_pipe_percent": max(tensor, default=None),
        "l2_hit_percent": first(r"lts__t_sector_hit_rate\.pct"),
        "dram_gb": None if seconds is None or rate is None else rate * seconds * 1e-9,
        "sectors_per_store": None if not requests or sectors is None else sectors / requests,
        "ms": None if seconds is None else 1e3 * seconds,
    }


def raw_page(text: str) -> dict[str, float]:
    """Numbers by the name of their metric, in seconds, bytes and what has no unit.

    Args:
        text: What ``ncu --csv --page raw`` prints of one launch: names, units and values, among other lines.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    if len(rows) < 3:  # names, units, values
        return {}
    found = {}
    for name, unit, value in zip(*rows[:3], strict=False):
        with contextlib.suppress(ValueError):  # names of kernels and the like
            found[name] = float(value.replace(",", "")) * _scale(unit)
    return found


def _scale(unit: str) -> float:
    """Of a duration or of bytes (per second), as in ``us``, ``usecond``, ``Gbyte/second`` and ``GB/s``."""
    match = re.fullmatch(r"([numkKMGT]?)(?:s|second|B|byte)(?:/s|/second)?", unit)
    return PREFIXES[match[1]] if match else 1.0
