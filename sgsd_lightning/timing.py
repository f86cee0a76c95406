"""Wall time of the phases of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up milliseconds a phase; waits for the GPU at the end of each, so that it is charged where it was issued."""

    def __init__(self) -> None:
        self.phase_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block under ``time/<phase>_ms``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            key = f"time/{phase}_ms"
            self.phase_ms[key] = self.phase_ms.get(key, 0.0) + 1000 * (time.perf_counter() - start)

    def take(self) -> dict[str, float]:
        """The times so far, starting anew."""
        taken, self.phase_ms = self.phase_ms, {}
        return taken
