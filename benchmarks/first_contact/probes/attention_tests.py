"""Step 5b: packed sequences under every attention that is installed, in bfloat16 on the device."""

from __future__ import annotations

from benchmarks.first_contact.probes.pytest_runs import run_tests
from benchmarks.first_contact.probes.record import Record


def measure(record: Record) -> None:
    run_tests(record, "tests/scoring/test_attention.py", "-k", "on_a_gpu")
