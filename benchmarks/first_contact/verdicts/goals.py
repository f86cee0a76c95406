"""Steps 9a and 9b: which goals are met by what the trainer calls."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict

IF_BROKEN = "run benchmarks.gated_head with one provider at a time"
OF_ALL_PEERS = "time over the best peer's"
"""Begins the name of the goal that this step cannot judge, since most peers are left out."""


def judge(found: Found) -> Verdict:
    wrong = [row for row in found.get("rows", []) if row["status"] in ("wrong", "failed") and _is_ours(row)]
    if wrong:
        row = wrong[0]
        return Verdict(
            "bad", f"{row['provider']} is {row['status']} in {row['mode']} ({row['reason']}): do not time it."
        )
    goals = [goal for goal in found.get("goals", []) if not goal["name"].startswith(OF_ALL_PEERS)]
    if not goals:
        return Verdict("skipped", "No goal was measured.")
    unmet = [goal for goal in goals if not goal["is_met"]]
    if unmet:
        clauses = [f"{goal['name']} is {goal['found']} where {goal['wanted']} was wanted" for goal in unmet]
        return Verdict(
            "act", f"{len(unmet)} of {len(goals)} goals are not met: {'; '.join(clauses)}; see steps 6 and 7."
        )
    clauses = [f"{goal['name']}: {goal['found']}" for goal in goals]
    return Verdict("good", f"All {len(goals)} goals are met ({'; '.join(clauses)}): commit run_all's results.")


def _is_ours(row: Found) -> bool:
    return str(row["provider"]).startswith("sgsd_kernels")
