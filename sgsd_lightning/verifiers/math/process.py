"""Compares expressions in worker processes that can be killed, so that none can hang or crash the run."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TypeVar

from sgsd_lightning.verifiers.math.worker_process import WorkerProcess

Key = TypeVar("Key")
Value = TypeVar("Value")
NUM_CACHED = 4096
MAX_WORKERS = 8
PATIENCE_S = 0.25
"""Seconds that a worker may take for one question before another worker starts, so that easy questions share one."""


class TimeBudget:
    """The remaining time of one question in seconds, over all comparisons that it needs."""

    def __init__(self, time_limit_s: float) -> None:
        self.remaining_s = time_limit_s


class MathProcess:
    """Asks worker processes whether two expressions are equivalent, and kills a worker that takes too long.

    The first worker starts on first use, further ones, up to ``MAX_WORKERS``, while all are busy: hard comparisons of
    several threads run in parallel. Waiting for a worker does not count towards the time limit. A forked child starts
    its own workers. Workers are plain subprocesses, which daemonic processes may start too. Results are cached, those
    of comparisons that ran out of time included. Linux and macOS.
    """

    def __init__(self) -> None:
        self.num_timeouts = 0
        """Comparisons of this process that ran out of time."""
        self.num_crashes = 0
        """Comparisons of this process that ended the worker, such as for lack of memory."""
        self._changed = threading.Condition()
        self._idle: list[WorkerProcess] = []
        self._busy: list[WorkerProcess] = []
        self._num_starting = 0
        self._judgements: dict[tuple[str, str], bool] = {}
        self._given_up: dict[tuple[str, str], float] = {}
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def is_equivalent(self, text: str, other: str, budget: TimeBudget) -> bool:
        """Return the worker's judgement, False if there is none in time; deduct the time taken from the budget.

        Raises:
            RuntimeError: if no worker can be started, such as when math-verify is missing.
        """
        pair = (min(text, other), max(text, other))
        with self._changed:
            if pair in self._judgements:
                return self._judgements[pair]
            if budget.remaining_s <= self._given_up.get(pair, 0.0):
                return False
        given_s = budget.remaining_s
        judgement = self._ask_worker(*pair, budget)
        with self._changed:
            if judgement is None:
                _remember(self._given_up, pair, given_s)
            else:
                _remember(self._judgements, pair, judgement)
        return judgement is True

    @property
    def worker_pid(self) -> int | None:
        """The process id of the first worker; None if none runs."""
        workers = self._busy + self._idle
        return workers[0].pid if workers else None

    def close(self) -> None:
        """End all workers; new ones start when needed."""
        with self._changed:
            for worker in self._idle + self._busy:
                worker.kill()
            self._idle.clear()

    def _ask_worker(self, text: str, other: str, budget: TimeBudget) -> bool | None:
        # something else may have ended the worker, so the expression is tried once more
        for _ in range(2):
            worker = self._acquire()
            started = time.monotonic()
            try:
                return worker.ask(text, other, budget.remaining_s)
            except TimeoutError:
                with self._changed:
                    self.num_timeouts += 1
                return None
            except (BrokenPipeError, EOFError):
                continue
            finally:
                budget.remaining_s -= time.monotonic() - started - worker.loading_s
                self._release(worker)
        with self._changed:
            self.num_crashes += 1
        return None

    def _acquire(self) -> WorkerProcess:
        """Return an idle worker, or a new one once every worker is busy for ``PATIENCE_S``."""
        with self._changed:
            while True:
                while self._idle:
                    worker = self._idle.pop(0)
                    if worker.is_running():
                        worker.asked_at = time.monotonic()
                        self._busy.append(worker)
                        return worker
                    worker.kill()
                if len(self._busy) + self._num_starting < MAX_WORKERS:
                    patience_s = self._patience_s()
                    if patience_s <= 0:
                        break
                    self._changed.wait(patience_s)
                else:
                    self._changed.wait()
            self._num_starting += 1
        try:
            worker = WorkerProcess.start()
        except RuntimeError:
            with self._changed:
                self._num_starting -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            self._num_starting -= 1
            self._busy.append(worker)
        return worker

    def _patience_s(self) -> float:
        """Return how many more seconds to wait for a busy worker; 0 or less if all are slow, or if there is none."""
        if not self._busy:
            return PATIENCE_S if self._num_starting else 0.0
        return max(worker.asked_at for worker in self._busy) + PATIENCE_S - time.monotonic()

    def _release(self, worker: WorkerProcess) -> None:
        with self._changed:
            self._busy.remove(worker)
            if worker.is_running():
                self._idle.append(worker)
            self._changed.notify_all()

    def _forget(self) -> None:
        """Reset in a forked child: workers belong to the parent, and a thread that is gone may hold the lock."""
        for worker in self._idle + self._busy:
            worker.forget()
        self._changed = threading.Condition()
        self._idle, self._busy, self._num_starting = [], [], 0


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    if len(memory) >= NUM_CACHED:
        memory.pop(next(iter(memory)))
    memory[key] = value


MATH_PROCESS = MathProcess()
"""The workers of this process, shared by all its verifiers."""
