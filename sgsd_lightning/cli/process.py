"""What `sgsd` is to its shell: where it finds modules, how it ends when interrupted or no longer read."""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType

from sgsd_lightning.cli.errors import process_label

INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + getattr(signal, "SIGPIPE", 13)
IMPORT_MACHINERY = "<frozen importlib._bootstrap"


def find_modules_here() -> None:
    """Let import paths begin in the current folder, as ``python -m`` does; whatever is installed comes first."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def end_interrupted_imports() -> None:
    """Let Ctrl-C during an import end the process in one line.

    A KeyboardInterrupt in the middle of an import runs through hundreds of frames, and packages turn it into errors of
    their own. Nothing has been started or written then.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def told_interrupted() -> int:
    """Say so; the exit status."""
    print(f"{process_label()}: interrupted", file=sys.stderr, flush=True)
    return INTERRUPTED


def is_unread() -> bool:
    """Whether standard output is a pipe whose reader left, as `| head` does."""
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), select.POLLERR)
        return any(event & select.POLLERR for _, event in watched.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def drop_output() -> None:
    """Send what is still to be printed nowhere, so that the interpreter does not complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _is_importing(frame):
        signal.default_int_handler(number, frame)
    os.write(2, f"{process_label()}: interrupted\n".encode())
    os._exit(INTERRUPTED)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORT_MACHINERY):
            return True
        frame = frame.f_back
    return False
