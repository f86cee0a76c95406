"""Which assembler makes machine code of the kernels, and whether it is known to get such kernels wrong."""

from __future__ import annotations

import functools
import logging

import triton

SOUND_SINCE = (13, 3)
"""The first CUDA release whose ptxas has none of the faults that are known of products on Hopper.

Before 12.9 and in parts up to 13.2 some wgmma and mma kernels of other projects gave wrong numbers or illegal accesses
(triton #11366, #10486, #11781; flash-linear-attention #1262). The worst case is wgmma that takes a factor from
registers, of which our kernels have none: `python -m benchmarks.compile_report` sees to it.
"""
_logger = logging.getLogger("sgsd_kernels")


def assembler_warning(capability: int, version: str) -> str | None:
    """What to say of ptxas ``version`` (as 12.8) on a device of the compute ``capability``; None where all is well."""
    if capability != 90 or tuple(int(part) for part in version.split(".")[:2]) >= SOUND_SINCE:
        return None
    sound = ".".join(map(str, SOUND_SINCE))
    return (
        f"Triton {triton.__version__} assembles kernels for sm_{capability} with ptxas {version}, which is known to "
        f"get some products (wgmma) of other projects wrong; ours hold none of the known patterns, and "
        f"TRITON_PTXAS_PATH with the ptxas of CUDA {sound} or later rules it out"
    )


@functools.cache
def warn_of_assembler(capability: int) -> None:
    """Say once, at level WARNING of the logger ``sgsd_kernels``, what `assembler_warning` does."""
    warning = assembler_warning(capability, triton.knobs.nvidia.ptxas.version)
    if warning is not None:
        _logger.warning("%s", warning)
