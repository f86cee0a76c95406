"""Step 4a: whether another assembler makes other numbers of the same kernels."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict, listed
from benchmarks.first_contact.verdicts.kernel_values import faults_of

IF_BROKEN = "the later assembler's code does not run, so stay with the bundled one and look at step 3's numbers alone"


def judge(found: Found) -> Verdict:
    if "release" not in found:
        return Verdict("skipped", "No assembler was looked for.")
    if not found["is_new_enough"]:
        have = f"only that of CUDA {found['release']}" if found["release"] else "none"
        return Verdict(
            "skipped",
            f"Of ptxas of CUDA 13.1 or later there is {have}: bring one (pip install nvidia-cuda-nvcc) to rule the "
            "bundled assembler's faults out.",
        )
    rows = found.get("cases", [])
    if not rows:
        return Verdict("skipped", f"No case of step 3 was compared with ptxas {found['release']}.")
    by_bundled = [row["case"] for row in rows if faults_of({**row, **row["bundled"]})]
    by_later = [row["case"] for row in rows if faults_of(row)]
    cured, spoilt = set(by_bundled) - set(by_later), set(by_later) - set(by_bundled)
    if cured:
        return Verdict(
            "bad",
            f"The bundled ptxas is wrong in {listed(sorted(cured))} and that of CUDA {found['release']} is right: set "
            f"TRITON_PTXAS_PATH={found['path']} (the later steps run so) and make the warning of triton_shared/"
            "assembler.py an error.",
            {"TRITON_PTXAS_PATH": found["path"], "SGSD_KERNELS_IMPLEMENTATION": "auto"},
        )
    if spoilt:
        return Verdict(
            "bad",
            f"The bundled ptxas is right in {listed(sorted(spoilt))} and that of CUDA {found['release']} is wrong: "
            "stay with the bundled one and report it.",
        )
    if by_later:
        return Verdict(
            "bad",
            f"Both assemblers are wrong in {listed(by_later)}: the fault is in the kernel or in Triton, not in ptxas.",
        )
    num_same = sum(row["same_bits"] for row in rows)
    return Verdict(
        "good",
        f"ptxas of CUDA {found['release']} gives right numbers too, in {num_same} of {len(rows)} cases the same bits: "
        "no fault of the bundled assembler shows, and its warning may stay one.",
    )
