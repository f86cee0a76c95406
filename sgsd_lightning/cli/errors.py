"""What a user sees of an error: one sentence where the input was wrong, a traceback where our code was."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

from sgsd_lightning.files import DISK_FULL, reason

INPUT_ERRORS = (ValueError, OSError, ImportError)
"""Kinds of errors that our code raises for wrong input."""
RUN_ERRORS = {"ModelUnavailableError", "NonfiniteLossError", "SamplerGapError"}
"""Names of those that it raises for a run that cannot continue; a wrong command line does not wait for their import."""
NOISE = re.compile(
    r"\s*(?:-\s*)?(?:Expected a <class 'NoneType'>|Subtypes: |Errors:$|Given value|Does not validate against any)"
)
LOST_CONNECTION = re.compile(
    r"connection (?:was )?(?:closed|reset|refused)|socket closed|timed out|remote process exited|broken pipe",
    re.IGNORECASE,
)
COLLECTIVES = re.compile(r"gloo|nccl|ProcessGroup|TCPStore|c10d", re.IGNORECASE)
OUR_PACKAGES = ("sgsd_lightning", "sgsd_kernels")


def message_to_user(error: BaseException) -> str | None:
    """The message for an error that has a cause outside the code; None for any other."""
    told = _cause(error)
    return None if told is None else "\n".join([told, *getattr(error, "__notes__", [])])


def process_label() -> str:
    """How a process names itself in front of a message."""
    rank = int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
    return f"sgsd (process {rank})" if rank else "sgsd"


def _cause(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = Path(frames[-1].filename).parts if frames else ()
    is_ours = any(package in raised_in for package in OUR_PACKAGES)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"{reason(error)}{where}"
    if is_ours and isinstance(error, ModuleNotFoundError) and str(error) == f"No module named {error.name!r}":
        return f"{error.name} is not installed; `pip install .` in the checkout installs what sgsd-lightning needs"
    if is_ours and (isinstance(error, INPUT_ERRORS) or _kinds(error) & RUN_ERRORS):
        return str(error)
    if isinstance(error, INPUT_ERRORS) and "jsonargparse" in raised_in:
        return essential_lines(str(error))
    if _is_lost_process(error):
        return f"another process of this run died or stopped answering ({str(error).splitlines()[0]})"
    return None


def _is_lost_process(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    message = str(error)
    from_collectives = "DistError" in _kinds(error) or COLLECTIVES.search(message) is not None
    return from_collectives and LOST_CONNECTION.search(message) is not None


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def essential_lines(message: str) -> str:
    """An error of jsonargparse without the lines that repeat the whole configuration or the types that it tried."""
    told = [line for line in message.splitlines() if line.strip() and not NOISE.match(line)]
    return "\n".join(line.strip().removeprefix("- ") for line in told)
