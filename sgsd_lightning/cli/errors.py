"""What a user is told of an error: one sentence where the input was wrong, a traceback where we were."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

NOISE = re.compile(
    r"\s*(?:-?\s*Expected a <class 'NoneType'>|Subtypes: |Errors:$|Given value|Does not validate against any)"
)
OUR_PACKAGES = ("sgsd_lightning", "sgsd_kernels")


def message_to_user(error: BaseException) -> str | None:
    """What to tell of an error that our code raised, or jsonargparse on its behalf; None for any other."""
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = Path(frames[-1].filename).parts if frames else ()
    if any(package in raised_in for package in OUR_PACKAGES):
        return str(error)
    if "jsonargparse" in raised_in:
        return essential_lines(str(error))
    return None


def essential_lines(message: str) -> str:
    """An error of jsonargparse without the lines that repeat the whole configuration or the types that it tried."""
    told = [line for line in message.splitlines() if line.strip() and not NOISE.match(line)]
    return "\n".join(line.strip().removeprefix("- ") for line in told)
