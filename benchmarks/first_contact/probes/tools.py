"""Programs beside Python that some steps use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CUDA_FOLDERS = ("usr/local/cuda*/bin", "opt/nvidia/nsight-compute/*")


@dataclass(frozen=True, slots=True)
class Output:
    """Exit status and everything that was printed."""

    returncode: int
    text: str


def find_tool(name: str) -> list[str]:
    """Paths of a program: on PATH first, then where CUDA is installed."""
    on_path = shutil.which(name)
    installed = [path for pattern in CUDA_FOLDERS for path in sorted(Path("/").glob(f"{pattern}/{name}"))]
    found = [on_path] if on_path else []
    return list(dict.fromkeys([*found, *(str(path) for path in installed if os.access(path, os.X_OK))]))


def run_tool(command: Sequence[str]) -> Output:
    """Run a program to its end; its output is shown and kept."""
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    print(done.stdout, flush=True)
    return Output(done.returncode, done.stdout)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module in this Python."""
    return [sys.executable, "-m", module, *arguments]


def cuda_release(text: str) -> tuple[int, ...]:
    """The CUDA release in what ``ptxas --version`` prints, as (13, 3); empty where there is none."""
    match = re.search(r"release (\d+)\.(\d+)", text)
    return tuple(map(int, match.groups())) if match else ()
