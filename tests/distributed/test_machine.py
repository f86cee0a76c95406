"""The line that stands beside numbers which depend on a machine's arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sgsd_lightning.distributed import machine


def test_it_names_processor_vectors_and_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("processor\t: 0\nmodel name\t: Some CPU: 3 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    monkeypatch.setattr(machine, "_CPU_INFO", cpu_info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    assert machine.describe_machine() == f"Some CPU: 3 GHz (AVX2), torch {torch.__version__}"


def test_it_names_what_limits_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert machine.describe_processor().endswith(", MKL_CBWR=AVX2)")


def test_a_system_without_cpuinfo_has_its_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert machine.describe_processor().startswith("riscv64 (")
