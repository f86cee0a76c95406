"""One kernel compiled ahead of time, and what must hold of it."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from benchmarks.machine_code import PTX_INSTRUCTIONS, SERIALIZED, ptx_instructions, read_machine_code, spilled_bytes

if TYPE_CHECKING:
    from sgsd_kernels.triton_shared.catalogue import Specimen

KIB = 1024
SHARED_MEMORY_LIMIT = {80: 163 * KIB, 90: 227 * KIB, 100: 227 * KIB, 120: 99 * KIB}
"""Bytes of shared memory that one block may opt in to, by compute capability (CUDA C++ programming guide, "Compute
capabilities": 8.0, 9.0, 10.0 and 12.0)."""
UNWANTED = {
    "slow exp2": "exponentials that keep subnormal results, at three more instructions each: use `exponential`",
    "wgmma from registers": "products (wgmma) that take A from registers, which assemblers are known to get wrong",
}
"""Kinds of `machine_code.ptx_instructions` that no kernel may hold, and what they are."""
TENSOR_MEMORY_LIMIT = 512
"""Columns of tensor memory on compute capability 10.0."""
INSTRUCTION_CAPABILITY = 90
"""The compute capability for which `Specimen.expects` is meant."""


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """What became of one specimen for one compute capability."""

    name: str
    capability: int
    num_warps: int
    num_stages: int
    registers: int
    """Per thread."""
    stack_bytes: int
    """Local memory per thread."""
    spilled_bytes: int
    """Per thread, by the log of ptxas."""
    shared_bytes: int
    """Dynamic shared memory per block."""
    tensor_memory_columns: int
    instructions: dict[str, int]
    """Kinds of `machine_code.MACHINE_INSTRUCTIONS` in the machine code."""
    num_instructions: int
    """Of the machine code."""
    ptx_instructions: dict[str, int]
    expects: list[str]
    holds: list[str]
    """Kinds of `ptx_instructions` that must be there."""
    is_serialized: bool
    """Whether ptxas says that it serialised the asynchronous products."""

    @property
    def local_bytes(self) -> int:
        """What the budget is about: bytes per thread on the stack or spilled, whichever is more."""
        return max(self.stack_bytes, self.spilled_bytes)

    def faults(self, budget_bytes: int = 0) -> list[str]:
        """What is wrong with the kernel, a sentence each; empty where all is well.

        Args:
            budget_bytes: `local_bytes` that are put up with.
        """
        kernel = f"{self.name} for sm_{self.capability}"
        found = []
        if self.local_bytes > budget_bytes:
            found.append(
                f"{kernel} keeps {self.stack_bytes} bytes per thread on the stack and spills {self.spilled_bytes};"
                f" its budget is {budget_bytes}"
            )
        limit = SHARED_MEMORY_LIMIT[self.capability]
        if self.shared_bytes > limit:
            found.append(f"{kernel} uses {self.shared_bytes} bytes of shared memory; the device has {limit}")
        if self.tensor_memory_columns > TENSOR_MEMORY_LIMIT:
            found.append(
                f"{kernel} uses {self.tensor_memory_columns} columns of tensor memory; the device has"
                f" {TENSOR_MEMORY_LIMIT}"
            )
        if self.capability == INSTRUCTION_CAPABILITY:
            found += [f"{kernel} holds no {kind} instruction" for kind in self.expects if kind not in self.instructions]
        found += [f"{kernel} holds no {kind}" for kind in self.holds if kind not in self.ptx_instructions]
        found += [
            f"{kernel} holds {self.ptx_instructions[kind]} {what}"
            for kind, what in UNWANTED.items()
            if kind in self.ptx_instructions
        ]
        if self.is_serialized:
            found.append(f"{kernel} has its asynchronous products (wgmma) serialised by ptxas")
        return found


@dataclass(frozen=True, slots=True)
class FailedKernel:
    """A specimen that does not compile."""

    name: str
    capability: int
    error: str

    def faults(self, budget_bytes: int = 0) -> list[str]:
        """That it does not compile."""
        return [f"{self.name} for sm_{self.capability} does not compile: {self.error}"]


@lru_cache
def specimens_by_name(catalogue: str, capability: int) -> dict[str, Specimen]:
    """The specimens of the module ``catalogue`` (its ``all_specimens``) for a compute capability.

    Raises:
        ValueError: one of them expects an instruction that is not known here.
    """
    specimens = importlib.import_module(catalogue).all_specimens(capability)
    for specimen in specimens:
        if unknown := specimen.expects - {"wgmma", "tma"}:
            raise ValueError(f"specimen {specimen.name} expects {sorted(unknown)}; only wgmma and tma are looked for")
        if unknown := specimen.holds - PTX_INSTRUCTIONS.keys():
            raise ValueError(
                f"specimen {specimen.name} holds {sorted(unknown)}; known are {', '.join(PTX_INSTRUCTIONS)}"
            )
    return {specimen.name: specimen for specimen in specimens}


def compile_specimen(catalogue: str, capability: int, name: str) -> CompiledKernel | FailedKernel:
    """Compile the specimen ``name``, which is found again by its name, as worker processes need it."""
    specimen = specimens_by_name(catalogue, capability)[name]
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            compiled = _compile(specimen, capability)
    except Exception as error:  # whatever the compiler raises is this kernel's row, and the others still want theirs
        return FailedKernel(name, capability, f"{type(error).__name__}: {' '.join(str(error).split())[-600:]}")
    return _describe(specimen, capability, compiled, output.getvalue())


def _compile(specimen: Specimen, capability: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    # a kernel from the cache has no log, and the log alone tells of spills and of serialised products
    triton.knobs.compilation.always_compile = True
    triton.knobs.nvidia.dump_ptxas_log = True
    warnings.filterwarnings("ignore", message="TRITON_DEFAULT_FP_FUSION")
    place = {argument: (index,) for index, argument in enumerate(specimen.kernel.arg_names)}
    source = ASTSource(
        fn=specimen.kernel,
        signature={**specimen.signature, **dict.fromkeys(specimen.constexprs, "constexpr")},
        constexprs={place[argument]: value for argument, value in specimen.constexprs.items()},
        attrs={place[argument]: [["tt.divisibility", 16]] for argument in specimen.divisible_by_16},
    )
    options = {"num_warps": specimen.num_warps, "num_stages": specimen.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _describe(specimen: Specimen, capability: int, compiled: Any, ptxas_log: str) -> CompiledKernel:
    import triton

    code = read_machine_code(compiled.asm["cubin"], triton.knobs.nvidia.cuobjdump.path)
    return CompiledKernel(
        name=specimen.name,
        capability=capability,
        num_warps=specimen.num_warps,
        num_stages=specimen.num_stages,
        registers=code.registers,
        stack_bytes=code.stack_bytes,
        spilled_bytes=spilled_bytes(ptxas_log),
        shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=getattr(compiled.metadata, "tmem_size", 0) or 0,
        instructions=code.instructions,
        num_instructions=code.num_instructions,
        ptx_instructions=ptx_instructions(compiled.asm["ptx"]),
        expects=sorted(specimen.expects),
        holds=sorted(specimen.holds),
        is_serialized=SERIALIZED in ptxas_log,
    )
