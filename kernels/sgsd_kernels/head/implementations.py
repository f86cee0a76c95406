"""From the name of an implementation to its passes. What needs triton is imported when it is asked for."""

from __future__ import annotations

import torch

from sgsd_kernels.head.chunked import ChunkedPasses
from sgsd_kernels.head.passes import HeadPasses


def passes_for(implementation: str, device: torch.device) -> HeadPasses:
    """The passes over the vocabulary that a resolved ``implementation`` other than ``reference`` is made of."""
    if implementation == "chunked":
        return ChunkedPasses()
    if implementation == "cublas":
        from sgsd_kernels.head.cublas import CublasPasses

        return CublasPasses()
    if implementation == "triton":
        from sgsd_kernels.head.triton import TritonPasses

        return TritonPasses.for_device(device)
    raise ValueError(f"{implementation!r} is not made of passes")
