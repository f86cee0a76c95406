"""Files: those of packages, JSON Lines whose last line may be cut off, atomic writes, and errors of a full disk."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sgsd_lightning.texts.strict_json import parse_line

PACKAGE_SCHEME = "package://"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def locate(source: str | Path, what: str) -> Path:
    """The file behind a path, or behind ``package://some.package/file``, which names one that a package ships.

    Args:
        source: the path.
        what: what the file is, for errors: ``skill bank``.

    Raises:
        FileNotFoundError: if there is no such package or file.
    """
    if str(source).startswith(PACKAGE_SCHEME):
        package, _, name = str(source).removeprefix(PACKAGE_SCHEME).partition("/")
        folders = package_folders(package)
        if not folders:
            raise FileNotFoundError(f"{what} {source}: there is no package {package!r}")
        found = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{what} {source}: the package {package!r} has no file {name!r}")
        return found
    path = Path(source)
    if path.is_dir():
        raise FileNotFoundError(f"{what} {path} is a folder, not a file (looked in {Path.cwd()})")
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist (looked in {Path.cwd()})")
    return path


def package_folders(package: str) -> list[Path]:
    """Return where an installed package lies; empty if there is none of that name.

    Only packages above it are imported, not the package itself: one that is there for its files may need others to run.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec is not None else []


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
            record = parse_line(line, str(path), number)
        except ValueError:
            if number == len(lines):  # only a line that was written whole ends in a line break
                return
            raise
        yield number, record


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


@contextmanager
def folder_atomically(folder: Path, mark: str) -> Iterator[Path]:
    """Give a new folder to fill, which becomes ``folder`` when the block ends without an error.

    Several processes may do so at once: the first to end wins, and what the others made is removed.

    Args:
        folder: where the result lies.
        mark: name of the file that the block writes last; a folder that has it is complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        yield staging
        try:
            staging.rename(folder)
        except OSError:
            if not (folder / mark).is_file():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
