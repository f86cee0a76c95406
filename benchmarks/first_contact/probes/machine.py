"""Step 1: device, versions, and whether a kernel can be launched at all."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from sgsd_kernels import gated_polarity

from benchmarks.compile_tables import REPORTS
from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import run_tool
from benchmarks.machine import provenance

OPTIONAL = ("jsonargparse", "datasets", "math_verify", "pytest")
TRAINING = ("transformers", "peft", "lightning")


def measure(record: Record) -> None:
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    record.put(
        provenance=provenance("benchmarks.first_contact", [], device),
        has_gpu=has_gpu,
        cuda=torch.version.cuda,
        compiler=_compiler(),
        has_python_headers=(Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
        beside={name: importlib.metadata.version(name) for name in TRAINING if importlib.util.find_spec(name)},
        missing=[name for name in OPTIONAL if importlib.util.find_spec(name) is None],
        triton=_triton(),
    )
    if shutil.which("nvidia-smi"):
        run_tool(["nvidia-smi"])
    if not has_gpu:
        return
    properties = torch.cuda.get_device_properties(device)
    record.put(
        capability=10 * properties.major + properties.minor,
        memory_gib=round(properties.total_memory / 2**30, 1),
        cudnn=torch.backends.cudnn.version(),
    )
    record.at("the first launch")
    record.put(launch_error=_launch(device))


def _compiler() -> str | None:
    """What Triton builds its launchers with."""
    wanted = (os.environ.get("CC"), "gcc", "clang", "cc")
    return next((path for name in wanted if name and (path := shutil.which(name))), None)


def _triton() -> dict[str, object] | None:
    try:
        import triton
    except ImportError:
        return None
    version = str(triton.__version__)
    try:
        assembler = str(triton.knobs.nvidia.ptxas.version)
    except Exception as error:  # a bundled program that does not run here must not end the step
        assembler = f"unknown ({error})"
    return {"version": version, "ptxas": assembler, "is_reported": (REPORTS / f"{version}.json").exists()}


def _launch(device: torch.device) -> str | None:
    """Why the smallest kernel cannot be launched; None where it can."""
    logprob = torch.zeros(1, 4, device=device)
    weight, outcome = torch.ones(1, 2, device=device), torch.ones(1, device=device)
    mask = torch.ones(1, 4, dtype=torch.bool, device=device)
    teachers = torch.zeros(1, 2, 4, device=device)
    try:
        output = gated_polarity(logprob, teachers, mask, weight, outcome, implementation="triton")
        is_finite = bool(output.rollout_loss.isfinite().all())
    except Exception as error:  # anything that stands in the way is what this step is for
        return f"{type(error).__name__}: {error}"[:500]
    return None if is_finite else "the loss is not finite"
