"""Step 3: whether the tiles that ship are right, the same again, and the same alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.first_contact.verdict import Found, Verdict

IF_BROKEN = "run the later steps with SGSD_KERNELS_IMPLEMENTATION=cublas, and this one again case by case"
GRADIENT_BOUND = 1e-2
"""Relative L2; one rounding to bfloat16 or float16 is 2e-3."""
ENTROPY_FACTOR = 10.0
"""Entropies are sums of products of log-probabilities, of which there are about ten nats."""

Row = Mapping[str, Any]


def logprob_bound(width: int) -> float:
    """What kernels/README.md states for heads of a width, and no less than 1e-4 nats."""
    return max(1e-4, 1e-7 * width)


def faults_of(row: Row) -> list[str]:
    """The parts of a case that are further from float64 than they may be; not-a-number is."""
    bound = logprob_bound(row["width"])
    bounds = {
        "logprob": bound,
        "lse": bound,
        "entropy": ENTROPY_FACTOR * bound,
        "grad_hidden": GRADIENT_BOUND,
        "grad_weight": GRADIENT_BOUND,
    }
    # JSON writes a not-a-number that Python reads back as one
    return [f"{part} by {row[part]:.1e}" for part, limit in bounds.items() if not row[part] <= limit]


def judge(found: Found) -> Verdict:
    rows: Sequence[Row] = found.get("cases", [])
    if not rows:
        return Verdict("skipped", "No case was compared.")
    wrong: dict[str, Row] = {}
    for row in rows:
        if faults_of(row):
            wrong.setdefault(row["implementation"], row)
    if wrong:
        return _wrong(wrong, {row["implementation"] for row in rows})
    unsteady = [row for row in rows if not row["same_again"]]
    if unsteady:
        return Verdict(
            "bad",
            f"{unsteady[0]['implementation']} gave other bits for the same input ({unsteady[0]['case']}): there is a "
            "race, so no run is reproducible; look at the sanitizer's step.",
        )
    dependent = [row for row in rows if row["implementation"].startswith("triton") and not row["same_alone"]]
    worst = max((row["logprob"] for row in rows), default=math.nan)
    if dependent:
        return Verdict(
            "act",
            f"All {len(rows)} cases are right (log p within {worst:.1e} nats), but a row's bits depend on its batch "
            f"({dependent[0]['case']}): strike batch invariance from kernels/README.md and from the table's reason.",
        )
    names = " and ".join(dict.fromkeys(row["implementation"] for row in rows))
    sound = f"{names} are right in all {len(rows)} cases (log p within {worst:.1e} nats) and give the same bits again"
    if found.get("is_interpreted"):
        return Verdict(
            "good", f"{sound} and alone, interpreted: the source is right, and of a device nothing is known."
        )
    return Verdict("good", f"{sound} and, for triton, alone: the claims of kernels/README.md stand on this device.")


def _wrong(wrong: Mapping[str, Row], tried: set[str]) -> Verdict:
    name, row = next(iter(wrong.items()))
    what = f"{name} is off in {row['case']} ({', '.join(faults_of(row))})"
    sound = tried - wrong.keys()
    if "cublas" in sound:
        return Verdict(
            "bad",
            f"{what}, and cublas is right: set SGSD_KERNELS_IMPLEMENTATION=cublas (the later steps run so) and change "
            "dispatch.TABLE until step 4 has said whether it is the assembler.",
            {"SGSD_KERNELS_IMPLEMENTATION": "cublas"},
        )
    if "triton" in sound:
        return Verdict(
            "bad",
            f"{what}, and triton is right: let dispatch.TABLE take chunked where it says cublas (divergence, support) "
            "until the row kernels are repaired.",
        )
    if "triton" in tried:
        return Verdict(
            "bad",
            f"{what}, and no implementation is right: set SGSD_KERNELS_IMPLEMENTATION=chunked (the later steps run "
            "so).",
            {"SGSD_KERNELS_IMPLEMENTATION": "chunked"},
        )
    return Verdict("bad", f"{what}: the tile is wrong by its source, not by a device; repair it before a GPU is used.")
