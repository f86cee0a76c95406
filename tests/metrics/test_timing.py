"""Phases are timed by events of the GPU's stream, which nothing waits for before the times are read."""

from __future__ import annotations

import time

import pytest
import torch

from sgsd_lightning.metrics.timing import PhaseTimer


class FakeStream:
    """Ten milliseconds between one event and the next; knows how often the host waited."""

    def __init__(self) -> None:
        self.num_events = 0
        self.num_waits = 0

    def event(self, *, enable_timing: bool) -> FakeEvent:
        assert enable_timing
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.num_waits += 1


class FakeEvent:
    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream

    def record(self) -> None:
        self.stream.num_events += 1
        self.at_ms = 10.0 * self.stream.num_events

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.stream.num_waits, "the end may lie in the future"
        return end.at_ms - self.at_ms


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> FakeStream:
    stream = FakeStream()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "synchronize", stream.synchronize)
    return stream


def test_a_step_waits_for_the_gpu_once_however_many_phases_it_has(stream: FakeStream) -> None:
    timer = PhaseTimer()
    for _ in range(3):
        with timer("rollout"):
            pass
        with timer("teachers"), timer("student"):
            pass
    assert stream.num_waits == 0
    assert timer.take() == {"time/rollout_ms": 30.0, "time/teachers_ms": 90.0, "time/student_ms": 30.0}
    assert stream.num_waits == 1
    assert timer.take() == {}


def test_a_phase_that_begins_before_the_gpu_is_in_use_is_timed_by_the_host(
    stream: FakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = PhaseTimer()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    timer.begin("rollout")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    timer.end("rollout")
    assert 0 <= timer.take()["time/rollout_ms"] < 1000
    assert stream.num_events == 0


def test_on_a_cpu_times_add_up_and_a_phase_that_was_not_begun_is_none() -> None:
    timer = PhaseTimer()
    for _ in range(2):
        with timer("verify"):
            time.sleep(0.002)
    timer.end("backward")
    taken = timer.take()
    assert taken.keys() == {"time/verify_ms"}
    assert taken["time/verify_ms"] >= 4
