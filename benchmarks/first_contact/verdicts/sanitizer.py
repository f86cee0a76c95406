"""Step 4b: whether a kernel reads or writes where it may not."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict, listed

IF_BROKEN = "run it by hand; without it step 3's numbers are all that speaks for the kernels' accesses"


def judge(found: Found) -> Verdict:
    if "has_tool" not in found:
        return Verdict("skipped", "compute-sanitizer was not looked for.")
    if not found["has_tool"]:
        return Verdict(
            "skipped", "There is no compute-sanitizer here: run this step where the CUDA toolkit is installed."
        )
    if "num_errors" not in found:
        return Verdict("skipped", "compute-sanitizer did not come to its end.")
    if found["num_errors"] is None:
        return Verdict(
            "act", "compute-sanitizer printed no summary: it does not support this device or driver; see its log."
        )
    if found["num_errors"] == 0:
        return Verdict("good", "No kernel of one forward and backward pass touches memory that is not its own.")
    kinds, kernels = listed(found["kinds"]) or "errors of no known kind", listed(found["kernels"]) or "no named kernel"
    if found["kinds"] and all("__shared__ read" in kind for kind in found["kinds"]):
        return Verdict(
            "act",
            f"{found['num_errors']} reads of shared memory are reported in {kernels}: where they are at a wgmma the "
            "tool is known to be wrong (compute-sanitizer-samples #19), else it is a fault.",
        )
    return Verdict(
        "bad",
        f"{found['num_errors']} errors ({kinds}) in {kernels}: set SGSD_KERNELS_IMPLEMENTATION=cublas (the later steps "
        "run so) until that kernel is repaired.",
        {"SGSD_KERNELS_IMPLEMENTATION": "cublas"},
    )
