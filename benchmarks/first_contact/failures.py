"""What ended a process, as the end of a sentence, from its exit status and the end of its output."""

from __future__ import annotations

import re
import signal

KNOWN = (
    (r"illegal memory access|misaligned address|unspecified launch failure", "a CUDA fault ({0})"),
    (r"device-side assert", "a failed assertion on the device"),
    (r"OutOfResources: .*", "a tile that this device has no room for ({0}); see triton_shared/configs.py"),
    (r"(?:CUDA out of memory|OutOfMemoryError)", "too little memory on the device"),
    (r"Failed to find C compiler|Python\.h: No such file", "Triton, which could not build its launcher ({0})"),
    (r"no kernel image is available", "a torch that was not built for this device"),
    (r"No module named '([\w.]+)'", "a package that is not installed ({1})"),
    (r"PTXASError|ptxas (?:fatal|error).*", "ptxas ({0})"),
)
"""Patterns of known causes, the most telling first, and what to call them."""
_ERROR_LINE = re.compile(r"^\w[\w.]*(?:Error|Exception|Interrupt)\b.*", re.MULTILINE)


def cause_of(returncode: int, output: str) -> str:
    """Name the cause of an exit status other than 0; ``output`` is the end of what was printed."""
    for pattern, name in KNOWN:
        match = re.search(pattern, output)
        if match is not None:
            return name.format(match[0][:160], *match.groups())
    if returncode < 0:
        return f"signal {_signal_name(-returncode)}"
    errors = _ERROR_LINE.findall(output)
    return errors[-1][:200] if errors else f"exit status {returncode}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
