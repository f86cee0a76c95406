"""Every kernel in every configuration that is shipped, described so that it can be compiled without a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CAPABILITIES = (80, 90, 100)
"""Compute capabilities that are compiled for: Ampere, Hopper, Blackwell."""

KERNEL_MODULES: tuple[str, ...] = (
    "head.kernels.scan",
    "head.kernels.dlogits",
    "head.kernels.rows",
    "gate.kernels.gate",
    "support.kernels.top_k",
    "support.kernels.products",
    "divergence.kernels.measure",
    "divergence.kernels.dlogits",
    "divergence.kernels.rows",
)
"""Each has a function ``specimens(capability)``."""


@dataclass(frozen=True)
class Specimen:
    """One kernel with everything that Triton compiles into it."""

    name: str
    """Unique within a capability, such as ``scan/tma/bfloat16``."""
    kernel: Any
    """The JITFunction."""
    signature: dict[str, str]
    """Triton's type of every argument, ``constexpr`` included."""
    constexprs: dict[str, Any]
    num_warps: int
    num_stages: int
    divisible_by_16: frozenset[str] = field(default_factory=frozenset)
    """Arguments whose address or value is a multiple of 16."""
    expects: frozenset[str] = field(default_factory=frozenset)
    """Of ``wgmma`` and ``tma``: what the machine code for capability 90 must hold."""


def all_specimens(capability: int) -> list[Specimen]:
    """Every specimen for one of `CAPABILITIES`.

    Raises:
        ValueError: two specimens of one name.
    """
    specimens = list(_specimens(capability))
    names = [specimen.name for specimen in specimens]
    if len(set(names)) != len(names):
        raise ValueError(f"two specimens of one name among {sorted(names)}")
    return specimens


def _specimens(capability: int) -> Iterator[Specimen]:
    for name in KERNEL_MODULES:
        yield from importlib.import_module(f"sgsd_kernels.{name}").specimens(capability)
