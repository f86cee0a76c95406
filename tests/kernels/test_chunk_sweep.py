"""The sweep of chunk sizes: all of its runs do the work of the choices that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import chunk_sweep
from benchmarks.compile_tables import HERE

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def test_every_setting_of_a_sweep_gives_the_same_statistics(device: torch.device) -> None:
    rows = chunk_sweep.random_rows(*chunk_sweep.SMALL[0], device)
    for sweep in chunk_sweep.sweeps(rows, capability=80)[:2]:
        assert sweep.shipped in sweep.runs
        first, *_, last = sweep.runs.values()
        torch.testing.assert_close(first().logprob, last().logprob, rtol=0, atol=1e-5)


def test_the_table_marks_what_ships() -> None:
    row = {"sweep": "scan", "size": [9, 8, 7], "median": 1.25}
    rows = [row | {"setting": "64", "is_shipped": False}, row | {"setting": "32", "is_shipped": True}]
    assert "| scan   | 9x8x7        | 64: 1.25, 32*: 1.25" in chunk_sweep.table({"rows": rows})


def test_without_a_gpu_nothing_is_measured_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sgsd_kernels.dispatch._is_interpreted", lambda: False)
    assert chunk_sweep.main(["--small"]) == 2
    assert "nothing was measured: implementation = 'triton' cannot do" in capsys.readouterr().err


def test_a_committed_sweep_is_one_of_a_gpu() -> None:
    file: Path = HERE / "results" / "chunk_sweep.json"
    if not file.exists():
        pytest.skip("not measured on a GPU")
    assert json.loads(file.read_text())["device"].startswith("NVIDIA")
