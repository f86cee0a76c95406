"""Files that survive a stop: JSON Lines whose last line may be cut off, atomic writes, and errors of a full disk."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def keep_whole_lines(path: Path) -> None:
    """Cut off an incomplete last line, so that the next append does not join it."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))


def whole_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number of the line from 1, JSON value); blank lines and an incomplete last line are left out.

    Raises:
        ValueError: naming the file and the line that is not JSON.
    """
    # by line feeds alone: a completion may hold any other line break that Python knows
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode("utf-8"))
        except ValueError as error:
            if number == len(lines):  # only a line that was written whole ends in a line break
                return
            raise ValueError(f"{path}:{number}: not JSON ({error})") from error


def reason(error: OSError) -> str:
    """Return the system's message, in plainer words if the disk or a quota is full."""
    is_full = error.errno in DISK_FULL
    return "the disk is full, or a limit on file size is reached" if is_full else error.strerror or str(error)


@contextmanager
def atomically(path: Path) -> Iterator[IO[str]]:
    """Open a text file (UTF-8, line feeds unchanged) that replaces ``path`` when the block ends without an error.

    A reader sees the old file or the new one, also after a crash. After an error the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
