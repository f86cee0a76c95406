"""Steps 5a and 5b: what the tests say on the device."""

from __future__ import annotations

from benchmarks.first_contact.verdict import Found, Verdict, listed

IF_BROKEN = "run the test that it was at alone; a CUDA fault makes every later test of its process fail"


def judge(found: Found) -> Verdict:
    if "has_pytest" not in found:
        return Verdict("skipped", "No test was begun.")
    if not found["has_pytest"]:
        return Verdict("skipped", "pytest is not installed: pip install pytest, and run this step again.")
    passed, failed, skipped = (found.get(f"num_{name}", 0) for name in ("passed", "failed", "skipped"))
    if not passed and not failed and not skipped:
        status = found.get("pytest_status")
        if status is None:
            return Verdict("skipped", "No test was finished.")
        return Verdict("bad", f"pytest ended with status {status} before any test: its log says why.")
    numbers = f"{passed} passed, {failed} failed, {skipped} skipped"
    if failed:
        return Verdict(
            "bad",
            f"{numbers}: begin with {listed(found['failed'], 1)}; where all after it fail too, it left a CUDA fault.",
        )
    if not passed:
        return Verdict("act", f"{numbers}: nothing ran, so nothing is known; the skips' reasons are in the log.")
    return Verdict("good", f"{numbers}: every kernel and path that these tests reach is right on this device.")
