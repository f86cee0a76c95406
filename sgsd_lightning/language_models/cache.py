"""A cache of answers on disk: no call is paid for twice, however the run that made it ended."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sgsd_lightning.files import keep_whole_lines, reason

log = logging.getLogger(__name__)


class AnswerCache:
    """A file of JSON Lines: one reply per line, as it was received, under the key of its call.

    The file is readable, append-only, and may be shared by processes and runs on one file system: appending takes a
    lock, and an unknown key is looked up among the lines that others have added since. Of two lines with the same key
    the first counts. A line that a killed process left half-written is cut off; any other malformed line is skipped
    with a warning. The file is opened at the first use.

    Args:
        path: the file; its folder is created.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._places: dict[str, int] = {}
        """Byte offset of the line of each key. Replies stay on disk, since there may be very many."""
        self._num_read = 0
        """Bytes."""
        self._num_lines = 0
        self._is_writable = True

    def find(self, key: str) -> str | None:
        """Return the reply under a key; None if there is none.

        Raises:
            OSError: if the file cannot be read.
        """
        if key not in self._places:
            self._read_new_lines()
        place = self._places.get(key)
        if place is None:
            return None
        with self.path.open("rb") as file:
            file.seek(place)
            text: str = json.loads(file.readline())["reply"]
        return text

    def add(self, key: str, reply: str, about: Mapping[str, Any]) -> None:
        """Append a reply, with ``about`` describing its call for people who read the file.

        A disk that is full ends no run here: the reply is used and not kept, which is logged once.
        """
        if not self._is_writable:
            return
        text = json.dumps({"key": key, **about, "reply": reply}, ensure_ascii=False) + "\n"
        line = text.encode("utf-8", "surrogatepass")  # a policy may sample half of a surrogate pair
        try:
            self._append(line)
        except OSError as error:
            self._is_writable = False
            log.warning("answers are no longer kept in %s: %s", self.path, reason(error))

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path) as file:
            if not _ends_whole(file):
                keep_whole_lines(self.path)  # of a process that died: whoever writes holds the lock
            file.seek(0, os.SEEK_END)
            file.write(line)

    def _read_new_lines(self) -> None:
        if not self.path.exists():
            return
        num_bad, first_bad = 0, 0
        with self.path.open("rb") as file:
            file.seek(self._num_read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # under way, or cut off
                key = _parse_key(line)
                if key is None:
                    first_bad = first_bad or self._num_lines + 1
                    num_bad += 1
                else:
                    self._places.setdefault(key, self._num_read)
                self._num_read += len(line)
                self._num_lines += 1
        if num_bad:
            log.warning(
                "%s:%d: %d lines are no cached answers and were skipped; remove the file to begin anew",
                self.path,
                first_bad,
                num_bad,
            )


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Lock the file, creating it if missing; the lock of a killed process is released."""
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
        file.flush()  # while the lock is held


def _ends_whole(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _parse_key(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(record, dict) and isinstance(record.get("key"), str) and isinstance(record.get("reply"), str)
    return record["key"] if is_ours else None
