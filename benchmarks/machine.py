"""Where a result comes from: machine, versions, commit, command; and the rate of the machine's own product."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.timing import time_runs
from sgsd_lightning.distributed.machine import describe_processor

PACKAGES = ("torch", "triton", "liger-kernel", "cut-cross-entropy", "quack-kernels")
BARE_OUTPUT_BYTES = 4 * 2**30


def provenance(module: str, arguments: Sequence[str], device: torch.device) -> dict[str, object]:
    """What a result file says of its making."""
    return {
        "command": shlex.join(["python", "-m", module, *arguments]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "HEAD"),
        "commit_is_clean": not _git("status", "--porcelain", "--untracked-files=no"),
        "device": device_name(device),
        "triton_interpreter": os.environ.get("TRITON_INTERPRET") == "1",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def device_name(device: torch.device) -> str:
    """``NVIDIA H200``, or what the system calls its CPU, with the vectors that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU: {describe_processor()}"


def bare_product_flops_per_second(
    rows: int, width: int, columns: int, dtype: torch.dtype, device: torch.device, seconds: float
) -> float:
    """Rate of ``torch.mm`` of [rows, width] and [width, columns] as the library does it, nothing else around it.

    Rows beyond an output of `BARE_OUTPUT_BYTES` are left out: the rate no longer depends on them.
    """
    rows = max(1, min(rows, BARE_OUTPUT_BYTES // (columns * dtype.itemsize)))
    left = torch.randn(rows, width, device=device, dtype=dtype)
    right = torch.randn(columns, width, device=device, dtype=dtype)
    output = torch.empty(rows, columns, device=device, dtype=dtype)

    def run() -> None:
        torch.mm(left, right.T, out=output)

    run()
    milliseconds = time_runs({"product": run}, device, seconds)["product"].median
    return 2 * rows * width * columns / (1e-3 * milliseconds)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
