"""Which implementation a call uses: the argument, else the environment, else a committed table."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Implementation = Literal["auto", "reference", "chunked", "triton", "cublas"]
"""``auto``: what the table says. ``reference``: the definition, builds [N, V], for tests. ``chunked``: plain torch in
bounded chunks, any device. ``triton``: kernels that keep logits on the chip. ``cublas``: the library's product into a
bounded float32 chunk, and one Triton kernel over its rows."""

Operation = Literal["linear_logprob", "linear_divergence", "teacher_support", "support_logprob", "gated_polarity"]

IMPLEMENTATION_VARIABLE = "SGSD_KERNELS_IMPLEMENTATION"

_HALF = (torch.bfloat16, torch.float16)
_logger = logging.getLogger("sgsd_kernels")
_reported: set[str] = set()


@dataclass(frozen=True, slots=True)
class Workload:
    """What a choice may depend on. The number of rows is not in it: a row's bits must not depend on its batch."""

    operation: Operation
    device_type: str
    capability: int
    """Compute capability of a CUDA device, as 80, 90, 100; 0 elsewhere."""
    dtypes: frozenset[torch.dtype]
    """Of the factors (hidden and weight), or of the log-probabilities."""
    width: int = 0
    """D; 0 where there is no head."""

    @classmethod
    def of(cls, operation: Operation, *tensors: Tensor) -> Workload:
        """The workload of ``tensors``: hidden and weight, or log-probabilities."""
        device = tensors[0].device
        capability = 0
        if device.type == "cuda" and torch.version.cuda is not None:
            major, minor = torch.cuda.get_device_capability(device)
            capability = 10 * major + minor
        return cls(operation, device.type, capability, frozenset(t.dtype for t in tensors), tensors[0].shape[-1])

    @property
    def is_half(self) -> bool:
        """Whether all factors are of one half-precision dtype."""
        return len(self.dtypes) == 1 and self.dtypes <= frozenset(_HALF)

    @property
    def has_tensor_core_product(self) -> bool:
        """Whether Triton multiplies the factors on tensor cores from aligned rows."""
        return self.is_half and self.capability >= 80 and self.width % 8 == 0

    @property
    def loses_tensor_cores_backward(self) -> bool:
        """Whether forward has tensor cores and backward, in float32, has not: a float16 head on CUDA."""
        multiplies_backward = self.operation in ("linear_logprob", "linear_divergence")
        return multiplies_backward and self.capability >= 80 and self.dtypes == frozenset({torch.float16})

    def __str__(self) -> str:
        dtypes = "/".join(sorted(str(dtype).removeprefix("torch.") for dtype in self.dtypes))
        device = f"sm_{self.capability}" if self.capability else self.device_type
        return f"{self.operation} on {device}, {dtypes}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    operations: tuple[Operation, ...]
    applies: Callable[[Workload], bool]
    implementation: str
    reason: str


def _any_cuda(workload: Workload) -> bool:
    return workload.capability >= 80 and torch.float64 not in workload.dtypes


def _tensor_cores(workload: Workload) -> bool:
    return workload.has_tensor_core_product


TABLE: tuple[Rule, ...] = (
    Rule(("linear_logprob",), _tensor_cores, "triton", "logits stay on the chip and rows are batch-invariant"),
    Rule(("linear_logprob",), _any_cuda, "cublas", "Triton has no fast float32 product"),
    Rule(("linear_divergence",), _any_cuda, "cublas", "one product per row and teacher instead of two"),
    Rule(("teacher_support",), _any_cuda, "cublas", "the ranking reads each logit once"),
    Rule(("support_logprob", "gated_polarity"), _any_cuda, "triton", "one launch"),
)
"""The first rule that applies decides; ``chunked`` where none does. The reasons are arithmetic, see
``benchmarks/README.md``: the table was not measured on a GPU."""


def resolve_implementation(implementation: str, workload: Workload) -> str:
    """The name of the implementation that a call would use: the argument, else the environment, else the table.

    Each new answer of the environment or the table is logged once, at level INFO of the logger ``sgsd_kernels``; that a
    float16 head trains slowly, at level WARNING.

    Raises:
        ValueError: a name that does not exist, or an implementation that cannot do the ``workload``.
    """
    source = "implementation"
    if implementation == "auto":
        source = f"the environment variable {IMPLEMENTATION_VARIABLE}"
        implementation = os.environ.get(IMPLEMENTATION_VARIABLE) or "auto"
    if implementation not in get_args(Implementation):
        raise ValueError(f"{source} must be one of {', '.join(get_args(Implementation))}; got {implementation!r}")
    if implementation == "auto":
        source, implementation = _by_table(workload)
    reason = _why_impossible(implementation, workload)
    if reason is not None:
        raise ValueError(f"{source} = {implementation!r} cannot do {workload}: {reason}; 'auto' chooses one that can")
    if source != "implementation":
        _report_once(f"{workload}: {implementation} ({source})")
    if workload.loses_tensor_cores_backward:
        _report_once(
            f"{workload}: gradients of logits stay in float32, as float16 would underflow, so the products of the "
            "backward pass run without tensor cores; a bfloat16 head is several times faster",
            logging.WARNING,
        )
    return implementation


def _by_table(workload: Workload) -> tuple[str, str]:
    for rule in TABLE:
        if workload.operation in rule.operations and rule.applies(workload) and _has_triton():
            return f"table: {rule.reason}", rule.implementation
    return "table: any device", "chunked"


def _why_impossible(implementation: str, workload: Workload) -> str | None:
    if implementation not in ("triton", "cublas"):
        return None
    if not _has_triton():
        return "the package triton is not installed"
    if workload.capability == 0 and not _is_interpreted():
        return "it needs a CUDA device (or TRITON_INTERPRET=1 in the environment, for tests)"
    if torch.float64 in workload.dtypes:
        return "its kernels compute in float32"
    if implementation == "triton" and workload.operation != "gated_polarity" and len(workload.dtypes) > 1:
        return "hidden and weight must have one dtype"
    return None


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _is_interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def _report_once(message: str, level: int = logging.INFO) -> None:
    if message not in _reported:
        _reported.add(message)
        _logger.log(level, "%s", message)
