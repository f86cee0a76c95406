"""Step 4b: one forward and backward pass of the shipped tiles under compute-sanitizer."""

from __future__ import annotations

import re

from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import find_tool, python_module, run_tool

WORKLOAD = python_module("benchmarks.first_contact.probes.workload", "130", "256", "600")


def measure(record: Record) -> None:
    tools = find_tool("compute-sanitizer")
    record.put(has_tool=bool(tools))
    if not tools:
        return
    record.at("compute-sanitizer")
    record.put(**read_summary(run_tool([tools[0], "--tool", "memcheck", *WORKLOAD]).text))


def read_summary(text: str) -> dict[str, object]:
    """How many errors the tool counted (None without its summary), of which kinds, in which kernels."""
    match = re.search(r"ERROR SUMMARY: (\d+) error", text)
    kinds = re.findall(r"=+ (Invalid \S+ \w+ of size \d+ bytes|Program hit \S+)", text)
    kernels = re.findall(r"=+ +at (\w+)", text)
    return {
        "num_errors": int(match[1]) if match else None,
        "kinds": list(dict.fromkeys(kinds))[:5],
        "kernels": list(dict.fromkeys(kernels))[:5],
    }
