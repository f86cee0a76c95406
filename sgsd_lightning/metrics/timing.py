"""Time of the phases of a step: by CUDA's events where a GPU is in use, else by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Mark = float | torch.cuda.Event
"""A point in time: of the host in seconds, or of the GPU's current stream."""


class PhaseTimer:
    """Adds up milliseconds per phase; waits for the GPU once a step, when the times are read.

    On a GPU a phase is what lies between two events of the stream: its own kernels, and the time in which the stream
    waits for the host. A phase of the host alone is shorter by what kernels of an earlier one still run beside it.
    """

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[Mark, Mark]]] = {}
        self._started: dict[str, Mark] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block under ``time/<phase>_ms``."""
        self.begin(phase)
        try:
            yield
        finally:
            self.end(phase)

    def begin(self, phase: str) -> None:
        """Start the clock of a phase that does not fit into a block."""
        self._started[phase] = _event() if torch.cuda.is_initialized() else time.perf_counter()

    def end(self, phase: str) -> None:
        """Stop the clock of a phase; does nothing if it was not started."""
        start = self._started.pop(phase, None)
        if start is not None:
            end = time.perf_counter() if isinstance(start, float) else _event()
            self._spans.setdefault(f"time/{phase}_ms", []).append((start, end))

    def take(self) -> dict[str, float]:
        """Return the times so far, and reset them; waits until the GPU has got to the last of them."""
        taken, self._spans = self._spans, {}
        if any(not isinstance(end, float) for spans in taken.values() for _, end in spans):
            torch.cuda.synchronize()
        return {phase: sum(_elapsed_ms(*span) for span in spans) for phase, spans in taken.items()}


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _elapsed_ms(start: Mark, end: Mark) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return 1000 * (end - start)
    assert not isinstance(start, float)  # both are of one clock
    assert not isinstance(end, float)
    return float(start.elapsed_time(end))
