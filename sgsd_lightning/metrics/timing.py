"""Wall time of the phases of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up milliseconds per phase; synchronises the GPU at both ends, so that a phase pays for its own kernels."""

    def __init__(self) -> None:
        self.phase_ms: dict[str, float] = {}
        self._started: dict[str, float] = {}

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
        self._started[phase] = _now()

    def end(self, phase: str) -> None:
        """Stop the clock of a phase; does nothing if it was not started."""
        start = self._started.pop(phase, None)
        if start is not None:
            key = f"time/{phase}_ms"
            self.phase_ms[key] = self.phase_ms.get(key, 0.0) + 1000 * (_now() - start)

    def take(self) -> dict[str, float]:
        """Return the times so far, and reset them."""
        taken, self.phase_ms = self.phase_ms, {}
        return taken


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
