"""math-verify in a process that can be killed: no expression can hang or crash the run."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
START_LIMIT_S = 120.0
NUM_STARTS = 2
NUM_CACHED = 4096
WORKER = Path(__file__).with_name("worker.py")


class TimeBudget:
    """The time that one question may still take, over all the comparisons that it needs, in seconds."""

    def __init__(self, time_limit_s: float) -> None:
        self.remaining_s = time_limit_s


class Judge:
    """Asks a worker process whether two expressions are equivalent, and kills it when it takes too long.

    One worker a process, started on first use; threads take turns, and waiting for one's turn is not counted as time.
    A forked child starts a worker of its own. The worker is a plain subprocess, which daemonic processes may have too.
    Judgements are remembered, the failed ones included. Linux and macOS.
    """

    def __init__(self) -> None:
        self.num_timeouts = 0
        """Comparisons that ran out of time so far, in this process."""
        self.num_crashes = 0
        """Comparisons that ended the worker so far, out of memory for instance, in this process."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._request_id = 0
        self._judgements: dict[tuple[str, str], bool] = {}
        self._given_up: dict[tuple[str, str], float] = {}
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def is_equivalent(self, text: str, other: str, budget: TimeBudget) -> bool:
        """math-verify's judgement; False when there is none within the budget, from which the time taken is deducted.

        Raises:
            RuntimeError: if the worker cannot be started, because math-verify is missing for instance.
        """
        pair = (min(text, other), max(text, other))
        with self._lock:
            if pair in self._judgements:
                return self._judgements[pair]
            if budget.remaining_s <= self._given_up.get(pair, 0.0):
                return False
            given_s = budget.remaining_s
            judgement = self._judge(*pair, budget)
            if judgement is None:
                _remember(self._given_up, pair, given_s)
            else:
                _remember(self._judgements, pair, judgement)
            return judgement is True

    @property
    def num_killed(self) -> int:
        """Comparisons without a judgement so far, in this process: timeouts and crashes."""
        return self.num_timeouts + self.num_crashes

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id; None when none runs."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """End the worker; another one starts when it is needed."""
        with self._lock:
            self._kill()

    def _judge(self, text: str, other: str, budget: TimeBudget) -> bool | None:
        # a worker that ended may have been ended by something else: the expression is tried once more
        for _ in range(2):
            process = self._running()
            self._request_id += 1
            request = json.dumps([self._request_id, text, other, budget.remaining_s]).encode() + b"\n"
            started = time.monotonic()
            try:
                _write(process, request)
                reply = _read_line(process, budget.remaining_s)
            except TimeoutError:
                self.num_timeouts += 1
                self._kill()
                return None
            except (BrokenPipeError, EOFError):
                self._kill()
                continue
            finally:
                budget.remaining_s -= time.monotonic() - started
            return reply == [self._request_id, True]
        self.num_crashes += 1
        return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        for _ in range(NUM_STARTS):
            self._kill()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                if _read_line(self._process, START_LIMIT_S) == "ready":
                    return self._process
            except (TimeoutError, EOFError):
                continue
        self._kill()
        raise RuntimeError(f"the verifier's worker process {WORKER.name} did not start; is math-verify installed?")

    def _kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        _close_pipes(self._process)
        self._process = None

    def _forget(self) -> None:
        """In a forked child: the worker is the parent's, and the lock may have been held by a thread that is gone."""
        self._lock = threading.Lock()
        if self._process is not None:
            _close_pipes(self._process)
            self._process.returncode = 0  # not this process's child: nothing to wait for
            self._process = None


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    if len(memory) >= NUM_CACHED:
        memory.pop(next(iter(memory)))
    memory[key] = value


def _write(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin is not None
    while request:
        request = request[process.stdin.write(request) :]


def _read_line(process: subprocess.Popen[bytes], time_limit_s: float) -> object:
    """One JSON line. Raises TimeoutError when it takes too long and EOFError when the worker ended."""
    assert process.stdout is not None
    deadline = time.monotonic() + time_limit_s
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not received.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                raise EOFError
            received += chunk
    reply: object = json.loads(received)
    return reply


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


JUDGE = Judge()
"""The judge of this process."""
