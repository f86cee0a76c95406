"""One probe in a process of its own: a crash, a hang or a CUDA fault ends that process and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.first_contact.verdict import Found

ROOT = Path(__file__).resolve().parents[2]
PROBES = "benchmarks.first_contact.probes"
GRACE_SECONDS = 3.0
"""Between asking a process to end and ending it."""
POLL_SECONDS = 0.05
TAIL_BYTES = 8000

Ending = Literal["finished", "timed out", "crashed"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one probe."""

    ending: Ending
    seconds: float
    found: Found
    """What had been measured by then."""
    returncode: int = 0
    tail: str = ""
    """The end of its output."""

    @property
    def at(self) -> str:
        """What it was at when it ended."""
        return str(self.found.get("at", "its start"))


def attempt(probe: str, folder: Path, seconds: float, environment: Mapping[str, str]) -> Attempt:
    """Run ``probe`` for at most ``seconds``; its measurements and output stay in ``folder``.

    Args:
        probe: A module of `benchmarks.first_contact.probes`.
        folder: Where ``PROBE.json`` and ``PROBE.log`` are written; there.
        seconds: When it, and all that it started, is ended.
        environment: Added to this process's.
    """
    measured, log = folder / f"{probe}.json", folder / f"{probe}.log"
    measured.unlink(missing_ok=True)
    command = [sys.executable, "-m", PROBES, probe, str(measured.resolve())]
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts can be ended with it
        )
        has_ended = False
        try:
            has_ended = _wait(process.pid, seconds)
        finally:
            _end(process)
    ending: Ending = "timed out" if not has_ended else "crashed" if process.returncode else "finished"
    taken = time.monotonic() - start
    return Attempt(ending, taken, _read(measured), process.returncode, _tail(log))


def _wait(pid: int, seconds: float) -> bool:
    """Whether the process ended within ``seconds``. It is left to be waited for, so that its number stays its own."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, where it has not ended, and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, number)
        _wait(process.pid, GRACE_SECONDS)
    process.wait()


def _python_path() -> str:
    """The checkout's own packages first, whether or not it is installed."""
    return os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _tail(log: Path) -> str:
    return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
