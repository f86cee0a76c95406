"""A handle on one worker process: start, ask, kill."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

START_LIMIT_S = 120.0
NUM_STARTS = 2
WORKER = Path(__file__).with_name("worker.py")


class WorkerProcess:
    """A running worker; only one thread may ask it at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._request_id = 0
        self.asked_at = time.monotonic()
        """`time.monotonic` when the current question arrived."""
        self.loading_s = 0.0
        """Seconds that the last question waited for libraries to load, which do not count towards its limit."""

    @classmethod
    def start(cls) -> WorkerProcess:
        """Start a worker and wait until it is ready.

        Raises:
            RuntimeError: if it does not start, such as when math-verify is missing.
        """
        for _ in range(NUM_STARTS):
            process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            worker = cls(process)
            try:
                if _read_line(process, START_LIMIT_S) == "ready":
                    return worker
            except (TimeoutError, EOFError):
                pass
            worker.kill()
        raise RuntimeError(f"the verifier's worker process {WORKER.name} did not start; is math-verify installed?")

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def ask(self, text: str, other: str, time_limit_s: float) -> bool:
        """Return the worker's judgement of a pair; kill it if there is none.

        Raises:
            TimeoutError: if it takes too long.
            BrokenPipeError, EOFError: if the worker has ended.
        """
        self._request_id += 1
        self.loading_s = 0.0
        request = json.dumps([self._request_id, text, other, time_limit_s]).encode() + b"\n"
        try:
            _write(self._process, request)
            deadline = time.monotonic() + time_limit_s
            reply = self._reply(deadline)
            if reply == "loading":
                started = time.monotonic()
                self._reply(started + START_LIMIT_S)
                self.loading_s = time.monotonic() - started
                reply = self._reply(deadline + self.loading_s)
            return reply is True
        except (TimeoutError, BrokenPipeError, EOFError, ValueError, OSError) as error:
            self.kill()
            raise error if isinstance(error, (TimeoutError, BrokenPipeError)) else EOFError from error

    def kill(self) -> None:
        """End the process; may be called again."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def forget(self) -> None:
        """Let go of the worker in a forked child: it belongs to the parent."""
        self._close_pipes()
        self._process.returncode = 0  # not this process's child: nothing to wait for

    def _reply(self, deadline: float) -> object:
        reply = _read_line(self._process, deadline - time.monotonic())
        return reply[1] if isinstance(reply, list) and reply[0] == self._request_id else None

    def _close_pipes(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _write(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin is not None
    while request:
        request = request[process.stdin.write(request) :]


def _read_line(process: subprocess.Popen[bytes], time_limit_s: float) -> object:
    """Read one JSON line. Raises TimeoutError when it takes too long and EOFError when the worker ended."""
    assert process.stdout is not None
    deadline = time.monotonic() + time_limit_s
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        # one byte at a time: a second line may have come already
        while not received.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), 1)
            if not chunk:
                raise EOFError
            received += chunk
    reply: object = json.loads(received)
    return reply
