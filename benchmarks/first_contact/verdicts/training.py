"""Step 10: whether training runs on the device, and what takes its time."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict, per_cent

IF_BROKEN = "the kernels can be used without the trainer until it is repaired"
MOST_OF_A_STEP = 0.5


def judge(found: Found) -> Verdict:
    if not found.get("num_steps"):
        return Verdict("skipped", "No step was taken.")
    missing = ", ".join(found.get("missing", []))
    way = f"{found['way']} (for want of {missing})" if missing else found["way"]
    steps = f"{found['num_steps']} steps by {way} on {found['device']}"
    if not found["is_finite"]:
        return Verdict("bad", f"{steps} had a loss that is not finite: repeat them with policy.attention sdpa.")
    phases = found["phases"]
    total, rollouts = phases["step"], phases["rollout"]
    if rollouts > MOST_OF_A_STEP * total:
        return Verdict(
            "act",
            f"{steps} run, and rollouts are {per_cent(rollouts / total)} of a step's {total:.0f} ms: decoding waits "
            "for launches, so time benchmarks.rollouts next and choose the engine and its graph by it.",
        )
    return Verdict("good", f"{steps} run, {total:.0f} ms each: time benchmarks.train_step next.")
