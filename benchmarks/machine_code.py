"""What ptxas and cuobjdump say about a compiled kernel: registers, local memory and kinds of instructions."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

MACHINE_INSTRUCTIONS = {
    "wgmma": r"[BHIQ]GMMA",
    "tma": r"UTMALDG",
    "tcgen05": r"UTC[A-Z]*MMA",
    "mma.sync": r"[DHIQ]MMA",
    "cp.async": r"LDGSTS",
    "local loads": r"LDL",
    "local stores": r"STL",
}
"""The opcodes (a pattern, without modifiers) of every kind of instruction that is counted in machine code."""

PTX_INSTRUCTIONS = {
    "wgmma": r"wgmma\.mma_async",
    "tma": r"cp\.async\.bulk\.tensor",
    "tcgen05": r"tcgen05\.mma",
    "mma.sync": r"mma\.sync",
    "cp.async": r"cp\.async\.c[ag]",
    "16-byte loads": r"ld\.global\S*\.v4\.[bfu]32",
    "16-byte stores": r"st\.global\S*\.v4\.[bfu]32",
    "slow exp2": r"ex2\.approx\.f32",
}
"""The same kinds in PTX, which has no local memory yet, and what is decided there: how wide accesses are, and how
exponentials are rounded."""

_RESOURCES = re.compile(r"REG:(?P<registers>\d+) STACK:(?P<stack>\d+) .*?LOCAL:(?P<local>\d+)")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][A-Z0-9_]*)", re.MULTILINE)
_PTX_STATEMENT = re.compile(r"^\s*(?:@!?%\w+\s+)?(?P<opcode>[a-z][\w.:]*)", re.MULTILINE)
_REGISTER_WGMMA = re.compile(r"^\s*wgmma\.mma_async\S*\s*\{[^}]*\},\s*\{", re.MULTILINE)
_SPILLS = re.compile(r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads")
SERIALIZED = "wgmma.mma_async instructions are serialized"


@dataclass(frozen=True, slots=True)
class MachineCode:
    """One kernel's machine code."""

    registers: int
    """Per thread."""
    stack_bytes: int
    """Local memory per thread, spilled registers included."""
    num_instructions: int
    instructions: dict[str, int]
    """How many of each kind of `MACHINE_INSTRUCTIONS` there are; absent kinds are left out."""


def read_machine_code(cubin: bytes, cuobjdump: str) -> MachineCode:
    """Take a cubin of one kernel apart with the program ``cuobjdump``.

    Raises:
        ValueError: the listing names no registers, or holds no instruction.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [cuobjdump, "--dump-resource-usage", "--dump-sass", file.name]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return parse_listing(listing)


def parse_listing(listing: str) -> MachineCode:
    """Read the output of ``cuobjdump --dump-resource-usage --dump-sass``; raises as `read_machine_code`."""
    resources = _RESOURCES.search(listing)
    if resources is None:
        raise ValueError(f"cuobjdump's listing names no registers; it begins {listing[:80]!r}")
    opcodes = Counter(found["opcode"] for found in _INSTRUCTION.finditer(listing))
    if not opcodes:
        raise ValueError(f"cuobjdump's listing holds no instruction; it begins {listing[:80]!r}")
    return MachineCode(
        registers=int(resources["registers"]),
        stack_bytes=int(resources["stack"]) + int(resources["local"]),
        num_instructions=opcodes.total(),
        instructions=_count_kinds(opcodes, MACHINE_INSTRUCTIONS),
    )


def ptx_instructions(ptx: str) -> dict[str, int]:
    """How many of each kind of `PTX_INSTRUCTIONS` there are in PTX; absent kinds are left out.

    ``wgmma from registers`` are those whose first factor is a list of registers, not a descriptor of shared memory.
    """
    opcodes = Counter(found["opcode"] for found in _PTX_STATEMENT.finditer(ptx))
    counts = _count_kinds(opcodes, {kind: rf"{pattern}\b.*" for kind, pattern in PTX_INSTRUCTIONS.items()})
    from_registers = len(_REGISTER_WGMMA.findall(ptx))
    return counts | ({"wgmma from registers": from_registers} if from_registers else {})


def spilled_bytes(ptxas_log: str) -> int:
    """Bytes per thread that go to local memory and back for want of registers, by the log of ``ptxas -v``.

    Raises:
        ValueError: the log does not say.
    """
    found = list(_SPILLS.finditer(ptxas_log))
    if not found:
        raise ValueError(f"the log of ptxas does not tell how much is spilled; it begins {ptxas_log[:80]!r}")
    return sum(max(int(match["stores"]), int(match["loads"])) for match in found)


def _count_kinds(opcodes: Mapping[str, int], kinds: Mapping[str, str]) -> dict[str, int]:
    counts = {
        kind: sum(count for opcode, count in opcodes.items() if re.fullmatch(pattern, opcode))
        for kind, pattern in kinds.items()
    }
    return {kind: count for kind, count in counts.items() if count}
