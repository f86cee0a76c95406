"""Step 4a: some cases of step 3 again, with their machine code by the ptxas of a later CUDA."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import cuda_release, find_tool, run_tool

LEAST_RELEASE = (13, 1)
"""The first CUDA whose ptxas lacks most of the known faults; see `sgsd_kernels.triton_shared.assembler`."""
PARTS = ("logprob", "lse", "entropy", "grad_hidden", "grad_weight")


def measure(record: Record) -> None:
    known = [(cuda_release(run_tool([path, "--version"]).text), path) for path in find_tool("ptxas")]
    release, path = max(known, default=((), ""))
    record.put(release=".".join(map(str, release)), is_new_enough=release >= LEAST_RELEASE, path=path)
    if release < LEAST_RELEASE:
        return
    # read when Triton compiles, which nothing has done in this process
    os.environ.update(TRITON_PTXAS_PATH=path, TRITON_PTXAS_BLACKWELL_PATH=path, TRITON_ALWAYS_COMPILE="1")
    from benchmarks.first_contact.probes import kernel_values

    bundled = _bundled(record.path.parent / "kernel_values.json")
    for case in kernel_values.cases():
        if case.num_rows == 1 or str(case) not in bundled:
            continue
        record.at(str(case))
        row = kernel_values.row_of(case, "triton", kernel_values.implementations()["triton"])
        record.add("cases", compared(row, bundled[str(case)]))


def compared(row: dict[str, Any], bundled: dict[str, Any]) -> dict[str, Any]:
    """One case by the other assembler, with the errors by the bundled one beside."""
    same = {"same_bits": row["digest"] == bundled["digest"]}
    own = {name: row[name] for name in PARTS}
    return {"case": row["case"], "width": row["width"], **same, **own, "bundled": {n: bundled[n] for n in PARTS}}


def _bundled(file: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads(file.read_text()).get("cases", []) if file.exists() else []
    return {row["case"]: row for row in rows if row["implementation"] == "triton"}
