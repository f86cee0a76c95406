"""The plan of a whole run against the memory that the operating system says a process took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(case: str) -> dict[str, int]:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.planning.measured_run", case],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
            "OMP_NUM_THREADS": "1",
            # else the C library keeps what tensors leave free
            "MALLOC_MMAP_THRESHOLD_": "65536",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    result: dict[str, int] = json.loads(finished.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def resident_without_a_model() -> int:
    return _run("nothing")["resident"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["full", "lora", "ema"])
def test_a_process_takes_what_was_planned(case: str, resident_without_a_model: int) -> None:
    result = _run(case)
    taken = result["resident"] - resident_without_a_model
    print(f"{case}: planned {result['planned'] / 2**20:.0f} MiB, taken {taken / 2**20:.0f} MiB")
    assert result["planned"] == pytest.approx(taken, rel=0.25)
