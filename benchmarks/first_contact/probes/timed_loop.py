"""The loop of the examples with a row of times per step, named as the trainer names them."""

from __future__ import annotations

import time

from examples.sgsd_loop import Loop
from sgsd_lightning.policy import PolicySource
from sgsd_lightning.types import Problem, Rollout


class TimedLoop(Loop):
    """`examples.sgsd_loop.Loop` that keeps its times: sampling and a step both end with numbers that the host reads."""

    def __init__(self, source: PolicySource) -> None:
        super().__init__(source)
        self.rows: list[dict[str, float]] = []

    def sample(self, problems: list[Problem], step: int) -> list[Rollout]:
        start = time.perf_counter()
        rollouts = super().sample(problems, step)
        self.rows.append({"time/rollout_ms": _milliseconds_since(start)})
        return rollouts

    def step(self, problems: list[Problem], step: int) -> tuple[float, float]:
        start = time.perf_counter()
        found = super().step(problems, step)
        self.rows[-1]["time/step_ms"] = _milliseconds_since(start)
        return found


def _milliseconds_since(start: float) -> float:
    return 1e3 * (time.perf_counter() - start)
