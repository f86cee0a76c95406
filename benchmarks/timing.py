"""Clocks: CUDA events behind a cold L2 cache, and an interleaving wall clock for CPUs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

FLUSH_BYTES = 256 * 2**20
"""More than any L2 cache."""
MIN_REPEATS = 5
MAX_REPEATS = 100
WARM_UP_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds of repeated runs."""

    median: float
    p20: float
    p80: float
    repeats: int

    @classmethod
    def of(cls, milliseconds: list[float]) -> Spread:
        ordered = sorted(milliseconds)

        def quantile(share: float) -> float:
            return ordered[round(share * (len(ordered) - 1))]

        return cls(statistics.median(ordered), quantile(0.2), quantile(0.8), len(ordered))


def time_runs(
    runs: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, repeats: int | None = None
) -> dict[str, Spread]:
    """Milliseconds of each run. On CUDA one after the other, elsewhere in turns.

    Args:
        runs: By name; none is called for the first time here.
        device: Where they run.
        seconds: About how long each may take in all, warm-up not counted.
        repeats: Fixes the number of repeats.
    """
    if device.type == "cuda":
        return {name: _time_on_cuda(run, device, seconds, repeats) for name, run in runs.items()}
    return _time_in_turns(runs, seconds, repeats)


def _time_on_cuda(run: Callable[[], object], device: torch.device, seconds: float, repeats: int | None) -> Spread:
    cache = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
    once = _cuda_milliseconds(run, cache)
    warm_up = min(MAX_REPEATS, int(1e3 * WARM_UP_SECONDS / max(once, 1e-3)))
    for _ in range(warm_up):
        run()
    count = repeats or _repeats(once, seconds)
    return Spread.of([_cuda_milliseconds(run, cache) for _ in range(count)])


def _cuda_milliseconds(run: Callable[[], object], cache: torch.Tensor) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    cache.zero_()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(cache.device)
    return start.elapsed_time(end)


def _time_in_turns(runs: Mapping[str, Callable[[], object]], seconds: float, repeats: int | None) -> dict[str, Spread]:
    found: dict[str, list[float]] = {name: [_wall_milliseconds(run)] for name, run in runs.items()}
    counts = {name: repeats or _repeats(first[0], seconds) for name, first in found.items()}
    found = {name: [] for name in runs}
    for turn in range(max(counts.values(), default=0)):
        for name, run in runs.items():
            if turn < counts[name]:
                found[name].append(_wall_milliseconds(run))
    return {name: Spread.of(milliseconds) for name, milliseconds in found.items()}


def _wall_milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _repeats(once: float, seconds: float) -> int:
    return max(MIN_REPEATS, min(MAX_REPEATS, int(1e3 * seconds / max(once, 1e-3))))
