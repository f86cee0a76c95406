"""What a probe has measured so far, kept in its file, so that nothing is lost when it is ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Record:
    """Named measurements, all of JSON's types; every change is written to ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {}

    def put(self, **values: Any) -> None:
        """Set measurements by name."""
        self.found.update(values)
        self.save()

    def add(self, name: str, value: Any) -> None:
        """Append to the list of a name."""
        self.found.setdefault(name, []).append(value)
        self.save()

    def at(self, place: str) -> None:
        """Note what comes next, so that a crash names it."""
        self.put(at=place)

    def save(self) -> None:
        """Replace the file, never leaving half of one."""
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.found, indent=1) + "\n")
        unfinished.replace(self.path)
