"""Step 5a: the tests of the kernels, what ships first."""

from __future__ import annotations

from pathlib import Path

from benchmarks.first_contact.attempts import ROOT
from benchmarks.first_contact.probes.pytest_runs import run_tests
from benchmarks.first_contact.probes.record import Record

FIRST = ("test_shipped_tiles", "test_linear_logprob_triton", "test_linear_divergence_triton", "test_gate")
LEFT_OUT = ("test_compile_report", "test_peers")
"""Neither launches a kernel of ours."""


def measure(record: Record) -> None:
    run_tests(record, *(str(path.relative_to(ROOT)) for path in ordered(ROOT / "tests/kernels")))


def ordered(folder: Path) -> list[Path]:
    """The files of tests, those of `FIRST` first."""
    files = [path for path in sorted(folder.glob("test_*.py")) if path.stem not in LEFT_OUT]
    rank = {name: place for place, name in enumerate(FIRST)}
    return sorted(files, key=lambda path: rank.get(path.stem, len(FIRST)))
