"""Every kernel in every configuration that is shipped, described so that it can be compiled without a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

CAPABILITIES = (80, 90, 100, 120)
"""Compute capabilities that are compiled for: Ampere, Hopper, Blackwell, and Blackwell's workstations and desktops."""

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
    holds: frozenset[str] = field(default_factory=frozenset)
    """Of ``16-byte loads`` and ``16-byte stores``: what the PTX for every capability must hold."""

    def variant(self, name: str, *, unaligned: Iterable[str] = (), **constexprs: Any) -> Specimen:
        """This kernel with other constants, called ``NAME/name``.

        Args:
            name: What is added to the name.
            unaligned: Arguments that are no multiple of 16 here; accesses of 16 bytes are then not asked for.
            constexprs: Constants; an argument that becomes one leaves the signature, as Triton does with a 1.
        """
        unaligned = frozenset(unaligned)
        return replace(
            self,
            name=f"{self.name}/{name}",
            signature={argument: type_ for argument, type_ in self.signature.items() if argument not in constexprs},
            constexprs=self.constexprs | constexprs,
            divisible_by_16=self.divisible_by_16 - constexprs.keys() - unaligned,
            holds=frozenset() if unaligned else self.holds,
        )


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
