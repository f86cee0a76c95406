"""Which implementation is chosen, and what is said where it cannot be had."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from sgsd_kernels import Workload, dispatch, linear_logprob, resolve_implementation
from sgsd_kernels.dispatch import IMPLEMENTATION_VARIABLE
from sgsd_kernels.head.implementations import passes_for

pytestmark = pytest.mark.on_cpu

HALF = frozenset({torch.bfloat16})
FULL = frozenset({torch.float32})
CPU = Workload("linear_logprob", "cpu", 0, FULL, 64)


def on_gpu(operation: Any, dtypes: frozenset[torch.dtype] = HALF, capability: int = 90, width: int = 2048) -> Workload:
    return Workload(operation, "cuda", capability, dtypes, width)


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IMPLEMENTATION_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (CPU, "chunked"),
        (on_gpu("linear_logprob"), "triton"),
        (on_gpu("linear_logprob", capability=80), "triton"),
        (on_gpu("linear_logprob", capability=75), "chunked"),
        (on_gpu("linear_logprob", width=2044), "cublas"),
        (on_gpu("linear_logprob", FULL), "cublas"),
        (on_gpu("linear_logprob", HALF | FULL), "cublas"),
        (on_gpu("linear_logprob", frozenset({torch.float64})), "chunked"),
        (on_gpu("linear_divergence"), "cublas"),
        (on_gpu("teacher_support"), "cublas"),
        (on_gpu("support_logprob"), "triton"),
        (on_gpu("gated_polarity", FULL), "triton"),
        (Workload("linear_logprob", "mps", 0, HALF, 2048), "chunked"),
    ],
)
def test_the_table_decides_by_device_dtype_and_width(workload: Workload, expected: str) -> None:
    assert resolve_implementation("auto", workload) == expected


def test_the_environment_decides_where_the_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMPLEMENTATION_VARIABLE, "reference")
    assert resolve_implementation("auto", CPU) == "reference"
    assert resolve_implementation("chunked", CPU) == "chunked"
    monkeypatch.setenv(IMPLEMENTATION_VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"{IMPLEMENTATION_VARIABLE} must be one of auto, reference, chunked"):
        resolve_implementation("auto", CPU)


def test_a_choice_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_reported", set())
    with caplog.at_level(logging.INFO, logger="sgsd_kernels"):
        for _ in range(3):
            linear_logprob(torch.zeros(2, 8), torch.zeros(5, 8), torch.zeros(2, dtype=torch.int64))
            # whoever names one needs not be told
            resolve_implementation("chunked", Workload.of("linear_logprob", torch.zeros(2, 8)))
    assert [record.getMessage() for record in caplog.records] == [
        "linear_logprob on cpu, float32: chunked (table: any device)"
    ]


def test_a_float16_head_on_a_gpu_is_said_to_train_slowly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_reported", set())
    with caplog.at_level(logging.WARNING, logger="sgsd_kernels"):
        for dtypes in (HALF, FULL, frozenset({torch.float16}), frozenset({torch.float16})):
            resolve_implementation("auto", on_gpu("linear_logprob", dtypes))
        resolve_implementation("auto", on_gpu("teacher_support", frozenset({torch.float16})))
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("linear_logprob on sm_90, float16: gradients of logits stay in float32")


@pytest.mark.parametrize(
    ("capability", "version", "is_bad"),
    [(90, "12.8", True), (90, "13.0", True), (90, "13.3", False), (90, "14.0", False), (80, "12.8", False)],
)
def test_assemblers_known_to_be_bad_on_hopper_are_named_with_what_to_do(
    capability: int, version: str, is_bad: bool
) -> None:
    assembler = pytest.importorskip("sgsd_kernels.triton_shared.assembler", reason="the kernels need triton")
    warning = assembler.assembler_warning(capability, version)
    assert (warning is not None) == is_bad
    if warning is not None:
        assert f"sm_90 with ptxas {version}" in warning
        assert "TRITON_PTXAS_PATH with the ptxas of CUDA 13.3 or later" in warning


@pytest.mark.parametrize("implementation", ["triton", "cublas"])
def test_float64_is_refused_by_the_float32_kernels(implementation: Any) -> None:
    inputs = (torch.zeros(2, 8).double(), torch.zeros(5, 8).double(), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"implementation = '{implementation}' cannot do .*compute in float32"):
        linear_logprob(*inputs, implementation=implementation)


def test_mixed_dtypes_are_refused_by_the_fused_kernels() -> None:
    inputs = (torch.zeros(2, 8).bfloat16(), torch.zeros(5, 8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="hidden and weight must have one dtype; 'auto' chooses one that can"):
        linear_logprob(*inputs, implementation="triton")


def test_the_reference_is_not_made_of_passes() -> None:
    with pytest.raises(ValueError, match="'reference' is not made of passes"):
        passes_for("reference", torch.device("cpu"))


PROBE = """
import sys
{before}
import torch
from sgsd_kernels import linear_logprob
inputs = (torch.ones(2, 8), torch.ones(5, 8), torch.zeros(2, dtype=torch.int64))
print(linear_logprob(*inputs).logprob.tolist())
assert not any(name.startswith("sgsd_kernels.") and ("triton" in name or ".kernels" in name) for name in sys.modules)
try:
    linear_logprob(*inputs, implementation="triton")
except ValueError as error:
    print(error)
"""


def run_probe(before: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = "kernels"
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which the kernels can run")
def test_without_a_gpu_the_kernels_say_what_they_need() -> None:
    assert "it needs a CUDA device (or TRITON_INTERPRET=1" in run_probe(before="")


def test_everything_but_the_kernels_works_without_triton() -> None:
    hide = (
        "import importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'triton' else find(name, *rest)"
    )
    assert "the package triton is not installed" in run_probe(before=hide)
