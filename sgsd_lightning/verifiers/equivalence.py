"""Whether two spellings are one answer: cheap exact rules first, math-verify in a process that can be killed after."""

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

from sgsd_lightning.verifiers.normalization import (
    MAX_LENGTH,
    choice_letter,
    compact,
    exact_number,
    is_damaged,
    is_remainder,
    normalize,
    split_list,
    strip_names,
    trim,
    value_of_sentence,
)

TIME_LIMIT_S = 5.0
START_LIMIT_S = 60.0
MAX_LIST_LENGTH = 16
WORKER = Path(__file__).with_name("worker.py")


def math_equal(predicted: str, answer: str, time_limit_s: float = TIME_LIMIT_S) -> bool:
    """Whether a predicted answer has the value of the published one.

    Never raises and never hangs, from any thread or process: what takes longer than the limit is not equal.

    Args:
        predicted: as a completion spells it.
        answer: as the data set spells it.
        time_limit_s: the longest that one comparison of expressions may take, in seconds.
    """
    if max(len(predicted), len(answer)) > MAX_LENGTH:
        return predicted.strip() == answer.strip()
    letters = choice_letter(predicted), choice_letter(answer)
    if all(letters):
        return letters[0] == letters[1]
    wanted = normalize(answer)
    if _equal(normalize(predicted), wanted, time_limit_s):
        return True
    value = value_of_sentence(predicted)
    return value is not None and _equal(normalize(value), wanted, time_limit_s)


def _equal(predicted: str, answer: str, time_limit_s: float) -> bool:
    if not predicted or not answer:
        return False
    values = strip_names(trim(predicted), trim(answer))
    if _same_text(predicted, answer) or _same_text(*values):
        return True
    numbers = exact_number(values[0]), exact_number(values[1])
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    lists = split_list(predicted), split_list(answer)
    if len(lists[0]) > 1 or len(lists[1]) > 1:
        return _equal_lists(*lists, time_limit_s)
    if is_damaged(values[1]):
        return is_remainder(values[1], values[0])
    if ("=" in values[0]) != ("=" in values[1]):
        return False  # math-verify would compare an equation's right-hand side alone
    return JUDGE.is_equivalent(values[0], values[1], time_limit_s)


def _same_text(predicted: str, answer: str) -> bool:
    return bool(predicted) and compact(predicted).casefold() == compact(answer).casefold()


def _equal_lists(predicted: list[str], answer: list[str], time_limit_s: float) -> bool:
    """Element by element, in any order: a list without brackets is a set."""
    if len(predicted) != len(answer) or len(answer) > MAX_LIST_LENGTH:
        return False
    remaining = list(answer)
    for element in predicted:
        match = next((other for other in remaining if _equal(element, other, time_limit_s)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


class Judge:
    """Asks a worker process whether two expressions are equivalent, and kills it when it takes too long.

    One worker a process, started on first use; a lock lets threads take turns. A forked child starts a worker of its
    own. The worker is a plain subprocess, which daemonic processes may have too. Linux and macOS.
    """

    def __init__(self) -> None:
        self.num_killed = 0
        """Comparisons that ran out of time or memory so far, in this process."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def is_equivalent(self, predicted: str, answer: str, time_limit_s: float) -> bool:
        """math-verify's judgement; False when there is none within the limit."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([predicted, answer]).encode() + b"\n")
                process.stdin.flush()
                reply = _read_line(process, time_limit_s)
            except BrokenPipeError:
                reply = None
            if reply is None:
                self.num_killed += 1
                self._kill()
                return False
            return reply is True

    def close(self) -> None:
        """End the worker; another one starts when it is needed."""
        with self._lock:
            self._kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if _read_line(self._process, START_LIMIT_S) != "ready":
                self._kill()
                raise RuntimeError(f"the verifier's worker process {WORKER} did not start; is math-verify installed?")
        return self._process

    def _kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process = None

    def _forget(self) -> None:
        """In a forked child: the worker is the parent's, and the lock may have been held by a thread that is gone."""
        self._lock = threading.Lock()
        self._process = None


def _read_line(process: subprocess.Popen[bytes], time_limit_s: float) -> object:
    """One JSON line, or None when the worker ended or took too long."""
    assert process.stdout is not None
    deadline = time.monotonic() + time_limit_s
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not received.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                return None
            received += chunk
    return json.loads(received)


JUDGE = Judge()
"""The judge of this process."""
