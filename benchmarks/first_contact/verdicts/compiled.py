"""Step C: whether kernels compile for Hopper as their budget says."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict

IF_BROKEN = "run python -m benchmarks.compile_report by hand"


def judge(found: Found) -> Verdict:
    if "num_kernels" not in found:
        return Verdict("skipped", "Nothing was compiled.")
    triton = f"Triton {found['versions']['triton']} (ptxas {found['versions']['ptxas']})"
    count = f"{found['num_kernels']} kernels" if found["is_whole"] else "the scan, the kernel that matters most,"
    if found["faults"]:
        return Verdict(
            "bad",
            f"{triton} compiles {count} for Hopper with {len(found['faults'])} faults, of which the first is: "
            f"{found['faults'][0]}; change the tile in triton_shared/configs.py or the budget of this release.",
        )
    return Verdict("good", f"{triton} compiles {count} for Hopper within its budget.")
