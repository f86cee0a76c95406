"""What this machine's arithmetic is known by, to stand beside numbers that depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")
_MATRIX_PRODUCTS = "MKL_CBWR"
"""The variable that limits which instructions torch's matrix products use."""


def describe_machine() -> str:
    """Processor and torch's version, in one line."""
    return f"{describe_processor()}, torch {torch.__version__}"


def describe_processor() -> str:
    """What the system calls its CPU and the widest vectors that torch uses: ``AMD EPYC 7763 (AVX2)``."""
    products = os.environ.get(_MATRIX_PRODUCTS)
    limit = f", {_MATRIX_PRODUCTS}={products}" if products else ""
    return f"{_processor_name()} ({torch.backends.cpu.get_cpu_capability()}{limit})"


def _processor_name() -> str:
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines() if _CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
