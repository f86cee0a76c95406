"""Files of one JSON object a line, which a process that is stopped may leave with half a line at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def keep_whole_lines(path: Path) -> None:
    """Cut off a last line that was not written to its end; what is appended next would be glued to it."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))


def whole_records(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of a line, from 1, and what it holds; blank lines and a last one that was cut off are left out.

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
