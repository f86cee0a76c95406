"""What probes read of other programs' output, and the parts of them that a CPU can run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.cases import FORWARD, Size
from benchmarks.first_contact.probes import goals, kernel_values, training
from benchmarks.first_contact.probes.counters import counters_of
from benchmarks.first_contact.probes.kernel_tests import FIRST, LEFT_OUT, ordered
from benchmarks.first_contact.probes.pytest_runs import counts
from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.sanitizer import read_summary
from benchmarks.first_contact.probes.tools import cuda_release
from benchmarks.first_contact.verdicts.kernel_values import faults_of, logprob_bound
from benchmarks.gated_head import AUTHORS, TRAINER, GatedHead
from tests.kernels.head_cases import logprob_bound as stated_bound

ROOT = Path(__file__).resolve().parents[2]
PAGE = """==PROF== Connected to process 7
"ID","Kernel Name","dram__bytes.sum.per_second","gpu__time_duration.sum","lts__t_sector_hit_rate.pct",\
"sm__inst_executed_pipe_tensor_op.avg.pct_of_peak_sustained_active","l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",\
"l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum"
"","","Gbyte/second","ms","%","%","",""
"0","scan_kernel","1,250","4","81.5","74.2","1,000","16,000"
==PROF== Disconnected
"""


def test_a_record_is_written_at_every_change(tmp_path: Path) -> None:
    record = Record(tmp_path / "probe.json")
    record.add("rows", 1)
    record.at("row 2")
    assert json.loads((tmp_path / "probe.json").read_text()) == {"rows": [1], "at": "row 2"}
    record.add("rows", 2)
    assert json.loads((tmp_path / "probe.json").read_text())["rows"] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["probe.json"]


def test_counters_are_read_in_the_units_that_they_come_in() -> None:
    found = counters_of(PAGE)
    assert found == {
        "tensor_pipe_percent": 74.2,
        "l2_hit_percent": 81.5,
        "dram_gb": 5.0,
        "sectors_per_store": 16.0,
        "ms": 4.0,
    }
    in_other_units = PAGE.replace('"Gbyte/second","ms"', '"byte/s","ns"').replace(
        '"1,250","4"', '"1.25e12","4,000,000"'
    )
    assert counters_of(in_other_units) == found


def test_a_page_without_counters_has_none() -> None:
    assert set(counters_of("==ERROR== ERR_NVGPUCTRPERM\n").values()) == {None}


def test_the_sanitizers_summary_is_read() -> None:
    text = """========= Invalid __global__ read of size 16 bytes
=========     at scan_kernel+0x1a0 in model.py:12
=========     Address 0x7f is out of bounds
========= Invalid __global__ read of size 16 bytes
========= ERROR SUMMARY: 2 errors
"""
    kinds = ["Invalid __global__ read of size 16 bytes"]
    assert read_summary(text) == {"num_errors": 2, "kinds": kinds, "kernels": ["scan_kernel"]}
    assert read_summary("========= Error: Device not supported\n")["num_errors"] is None


def test_the_release_of_an_assembler_is_read() -> None:
    assert cuda_release("Cuda compilation tools, release 13.3, V13.3.17") == (13, 3)
    assert cuda_release("no such program") == ()


def test_tests_are_counted_while_they_run() -> None:
    lines = [
        "collecting ... collected 5 items\n",
        "tests/a.py::test_one[cuda] PASSED   [ 20%]\n",
        "tests/a.py::test_two[a b] FAILED    [ 40%]\n",
        "tests/a.py::test_three SKIPPED (it needs two) [ 60%]\n",
        "ERROR tests/b.py - ModuleNotFoundError: No module named 'x'\n",
        "FAILED tests/a.py::test_two[a b] - AssertionError\n",
    ]
    assert counts(lines) == {
        "num_passed": 1,
        "num_failed": 2,
        "num_skipped": 1,
        "failed": ["tests/a.py::test_two[a b]", "tests/b.py"],
        "at": "tests/a.py::test_three",
    }


def test_what_ships_is_tested_first_and_every_named_file_is_there() -> None:
    names = [path.stem for path in ordered(ROOT / "tests/kernels")]
    assert tuple(names[: len(FIRST)]) == FIRST
    assert not set(LEFT_OUT) & set(names)
    assert all((ROOT / "tests/kernels" / f"{name}.py").exists() for name in LEFT_OUT)


def test_phases_are_means_over_the_last_half_of_the_steps() -> None:
    rows = [{"time/rollout_ms": value, "time/step_ms": 10 * value, "loss": 1.0} for value in (99.0, 98.0, 1.0, 3.0)]
    assert training.phases_of(rows) == {"rollout": 2.0, "step": 20.0}
    assert training.phases_of([]) == {}


def test_the_bound_is_the_one_that_the_tests_hold_kernels_to_or_more() -> None:
    assert [logprob_bound(width) for width in (2048, 4096)] == [stated_bound(2048), stated_bound(4096)]
    assert logprob_bound(64) >= stated_bound(64)


def test_the_definition_of_a_case_is_right_and_a_wrong_implementation_is_seen() -> None:
    case = kernel_values.Case(9, 16, 40, torch.bfloat16, {"softcap": 3.0, "temperature": 0.7, "vocab_limit": 38})
    chunked = kernel_values.functools.partial(kernel_values.linear_logprob, implementation="chunked")
    row = kernel_values.row_of(case, "chunked", chunked)
    assert faults_of(row) == []
    assert row["same_again"]

    def without_softcap(*arguments: torch.Tensor, softcap: float, **options: object) -> object:
        return chunked(*arguments, **options)

    assert "logprob by" in faults_of(kernel_values.row_of(case, "wrong", without_softcap))[0]


def test_the_goals_of_a_size_are_measured_mode_by_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "PROVIDERS", (AUTHORS,))
    monkeypatch.setattr(goals, "SECONDS", 0.0)
    record = Record(tmp_path / "goals.json")
    goals.measure_goals(record, Size(tokens=8, teachers=2, width=8, vocabulary=37), [FORWARD])
    assert [(row["provider"], row["status"]) for row in record.found["rows"]] == [(AUTHORS, "measured")]
    assert record.found["at"] == "forward, 8x2x8x37"
    assert record.found["goals"] == []  # none is stated for this size


def test_the_providers_of_the_goals_are_those_of_the_benchmark() -> None:
    names = [provider.name for provider in GatedHead().providers()]
    chosen = [name for name in names if any(part in name for part in goals.PROVIDERS)]
    assert all(any(part in name for name in names) for part in goals.PROVIDERS)
    assert sum(name.endswith(TRAINER) for name in chosen) == 2
