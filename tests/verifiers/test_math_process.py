"""Hostile expressions, wherever they are compared, neither hang nor crash the run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sgsd_lightning.types import Problem
from sgsd_lightning.verifiers import MathAnswer, math_equal
from sgsd_lightning.verifiers.math.process import MATH_PROCESS
from tests.support.tiny import tiny_rollout

ENDLESS = "9^{9^{9^9}}"
LIMIT_S = 0.4
ALLOWANCE_S = 15.0
"""For the worker's start on a busy machine; without a limit the comparison would never end."""


@pytest.fixture
def process() -> Iterator[Any]:
    MATH_PROCESS.close()
    MATH_PROCESS._judgements.clear()
    MATH_PROCESS._given_up.clear()
    yield MATH_PROCESS
    MATH_PROCESS.close()


@pytest.mark.parametrize(
    "expression",
    [
        ENDLESS,
        "(10^9)!",
        r"\binom{10^9}{10^8}",
        "(" * 900 + "x" + ")" * 900,
        "(" * 100_000 + "x" + ")" * 100_000,
        "(x+1)^{100000}",
        ", ".join(f"{k}^{{9^{{9^9}}}}+x" for k in range(2, 30)),
    ],
    ids=lambda expression: expression[:20],
)
def test_a_hostile_expression_is_not_equal_and_stays_within_the_limit(process: Any, expression: str) -> None:
    assert math_equal("x+y", "y+x")
    started = time.perf_counter()
    assert not math_equal(expression, "x^2+1", LIMIT_S)
    assert time.perf_counter() - started < LIMIT_S + 5
    assert math_equal("x+y", "y+x"), "the next comparison has a worker again"


def test_timeouts_are_counted_and_not_paid_twice(process: Any) -> None:
    before = process.num_timeouts
    assert not math_equal(ENDLESS, "x+1", LIMIT_S)
    assert process.num_timeouts == before + 1
    started = time.perf_counter()
    assert not math_equal("x+1", ENDLESS, LIMIT_S)
    assert time.perf_counter() - started < LIMIT_S / 2
    assert process.num_timeouts == before + 1
    assert not math_equal(ENDLESS, "x+1", 2 * LIMIT_S), "with more time it is tried again"
    assert process.num_timeouts == before + 2


def test_threads_take_turns_and_each_gets_its_own_answer(process: Any) -> None:
    def compare(index: int) -> bool:
        if index % 8 == 7:
            return math_equal(f"{index}+{ENDLESS}", "x+1", LIMIT_S)
        return math_equal(f"x+{index}y", f"{index}y+x" if index % 2 else f"{index}y-x")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(compare, range(24)))
    assert results == [index % 2 == 1 and index % 8 != 7 for index in range(24)]


def test_hard_expressions_cost_their_limit_side_by_side(process: Any) -> None:
    problem = Problem(problem_id="p", text="?", answer="x+1")
    hard = [tiny_rollout(problem, [1], [index], text=rf"\boxed{{{index}+{ENDLESS}}}") for index in range(8)]
    limit_s = 3.0
    started = time.perf_counter()
    judged = MathAnswer(time_limit_s=limit_s).verify(hard)
    assert time.perf_counter() - started < 6 * limit_s, "one after another they take eight times the limit"
    assert {entry.verdict.reward for entry in judged} == {0.0}
    assert process.num_timeouts + process.num_crashes >= 8


def test_easy_comparisons_of_many_threads_share_a_worker(process: Any) -> None:
    assert math_equal("x+y", "y+x")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda index: math_equal(f"x+{index}y", f"{index}y+x"), range(40)))
    assert len(process._idle) <= 4


def test_loading_a_library_is_not_counted_as_time(process: Any) -> None:
    assert math_equal(r"\int_0^1 2x\,dx", "1", 2.0)


def test_a_worker_that_is_killed_is_replaced(process: Any) -> None:
    assert math_equal("x+y", "y+x")
    for expression in ("2x+y", "3x+y"):
        pid = process.worker_pid
        os.kill(pid, signal.SIGKILL)
        assert math_equal(expression, f"y+{expression[:2]}")
        assert process.worker_pid not in (None, pid)


def _compare(connection: Any) -> None:
    endless = math_equal(ENDLESS, "x+1", LIMIT_S)
    connection.send((math_equal("x+y", "y+x"), endless))


@pytest.mark.parametrize(
    ("method", "is_daemon"), [("fork", True), pytest.param("spawn", True, marks=pytest.mark.slow), ("fork", False)]
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_child_processes_compare_too(process: Any, method: str, is_daemon: bool) -> None:
    assert math_equal("x+1", "1+x")
    pid = process.worker_pid
    context: Any = multiprocessing.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_compare, args=(sending,), daemon=is_daemon)
    child.start()
    assert receiving.poll(60)
    assert receiving.recv() == (True, False)
    child.join(20)
    assert child.exitcode == 0
    assert math_equal("x+2", "2+x")
    assert process.worker_pid == pid, "the parent's worker is untouched"


def _ends(script: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return time.perf_counter() - started, done


def test_the_interpreter_ends_at_once_and_takes_its_worker_along() -> None:
    _, done = _ends(
        "from sgsd_lightning.verifiers import math_equal\n"
        "from sgsd_lightning.verifiers.math.process import MATH_PROCESS\n"
        "assert math_equal('x+y', 'y+x'); print(MATH_PROCESS.worker_pid)"
    )
    assert done.returncode == 0, done.stderr
    assert not _is_alive(int(done.stdout), patience_s=2)


def test_a_busy_worker_outlives_a_killed_parent_only_until_its_alarm() -> None:
    _, done = _ends(
        "import os, signal, threading, time\n"
        "from sgsd_lightning.verifiers import math_equal\n"
        "from sgsd_lightning.verifiers.math.process import MATH_PROCESS\n"
        "assert math_equal('x+y', 'y+x'); print(MATH_PROCESS.worker_pid, flush=True)\n"
        f"threading.Thread(target=math_equal, args=('{ENDLESS}', 'x+1', 1.0)).start()\n"
        "time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not _is_alive(int(done.stdout), patience_s=ALLOWANCE_S)


def _is_alive(pid: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        if _is_zombie(pid):
            return False
        time.sleep(0.05)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as status:
            return status.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


def test_the_package_imports_without_math_verify_and_sympy() -> None:
    _, done = _ends(
        "import sys, sgsd_lightning.verifiers.math.equivalence\n"
        "assert sgsd_lightning.verifiers.math_equal('x = 12 cm', '12')\n"
        "print([name for name in ('math_verify', 'latex2sympy2_extended', 'transformers') if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("copy", [lambda verifier: pickle.loads(pickle.dumps(verifier))], ids=["pickle"])
def test_the_verifier_pickles(copy: Callable[[MathAnswer], MathAnswer]) -> None:
    copied = copy(MathAnswer(truncated_rollouts="failure", time_limit_s=2.0))
    assert (copied.truncated_rollouts, copied.time_limit_s) == ("failure", 2.0)
