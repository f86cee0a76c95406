"""Step 7: where the scan's time goes, and whether the gradient's stores are wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.first_contact.verdict import Found, Verdict

IF_BROKEN = "the counters stay unknown; step 6's times do not depend on them"
LEAST_TENSOR_PERCENT = 70.0
MOST_DRAM_GB = 5.0
"""Of the scan of 9216 rows at D = 2048: hidden and head are 0.66 GB, and a cache that holds a group reads few again."""
LEAST_SECTORS = 12.0
"""Per store request: 16 where every thread stores 16 bytes, 2 where it stores 2."""


def judge(found: Found) -> Verdict:
    if "has_tool" not in found:
        return Verdict("skipped", "Nsight Compute was not looked for.")
    if not found["has_tool"]:
        return Verdict("skipped", "There is no ncu here: run this step where the CUDA toolkit is installed.")
    if found.get("is_refused"):
        return Verdict(
            "skipped",
            "The driver keeps its counters from users (ERR_NVGPUCTRPERM): run as root, or load the driver with "
            "NVreg_RestrictProfilingToAdminUsers=0.",
        )
    kernels = {row["kernel"]: row for row in found.get("kernels", [])}
    causes = [*_scan(kernels.get("scan_kernel", {})), *_stores(kernels.get("dlogits_kernel", {}))]
    if not _is_known(kernels):
        return Verdict("skipped", "ncu printed no counter that is known here; its log has what it printed.")
    about = _about(kernels)
    if causes:
        return Verdict("act", f"{about}: {'; '.join(causes)}.")
    return Verdict("good", f"{about}: the tensor pipe is busy, hidden states stay in the cache and stores are wide.")


def _scan(row: Mapping[str, Any]) -> list[str]:
    found = []
    tensor, dram = row.get("tensor_pipe_percent"), row.get("dram_gb")
    if tensor is not None and tensor < LEAST_TENSOR_PERCENT:
        found.append(
            "the tensor pipe waits for the epilogue, so a warp-specialised scan (Gluon) is the next thing to build"
        )
    if dram is not None and dram > MOST_DRAM_GB:
        found.append("hidden states leave the cache, so lower GROUP_BYTES in triton_shared/configs.py")
    return found


def _stores(row: Mapping[str, Any]) -> list[str]:
    sectors = row.get("sectors_per_store")
    if sectors is None or sectors >= LEAST_SECTORS:
        return []
    return ["dlogits are stored in pieces of less than 16 bytes, so look at its PTX for st.global.v4"]


def _is_known(kernels: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(value is not None for row in kernels.values() for name, value in row.items() if name != "kernel")


def _about(kernels: Mapping[str, Mapping[str, Any]]) -> str:
    scan, dlogits = kernels.get("scan_kernel", {}), kernels.get("dlogits_kernel", {})
    parts = [
        ("tensor pipe", scan.get("tensor_pipe_percent"), "%"),
        ("L2 hits", scan.get("l2_hit_percent"), "%"),
        ("DRAM", scan.get("dram_gb"), "GB"),
        ("sectors per store of dlogits", dlogits.get("sectors_per_store"), ""),
    ]
    known = [f"{name} {value:.3g} {unit}".rstrip() for name, value, unit in parts if value is not None]
    return f"The scan at D = 2048 ({', '.join(known)})"
