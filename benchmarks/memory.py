"""How much memory a run needs at its peak, beyond what was there before and the gradients that it returns."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.providers import Run

MEASURES = {
    "cuda": "torch.cuda.max_memory_allocated less what was allocated before and the returned gradients",
    "cpu": "peak of the CPU allocator's live bytes during the run (torch.profiler) less the returned gradients",
}


def workspace_bytes(run: Run, device: torch.device) -> int:
    """Bytes at the peak of one ``run``; see `MEASURES` for what is counted on which device."""
    return _on_cuda(run, device) if device.type == "cuda" else _on_cpu(run)


def _on_cuda(run: Run, device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    gradients = _gradient_bytes(run)
    torch.cuda.synchronize(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before - gradients)


def _on_cpu(run: Run) -> int:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with _silent_profiler(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        gradients = _gradient_bytes(run)
    recorded: Callable[[], list] = profile.profiler.kineto_results.events
    changes = sorted((event.start_ns(), event.nbytes()) for event in recorded() if event.name() == "[memory]")
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return max(0, peak - gradients)


@contextmanager
def _silent_profiler() -> Iterator[None]:
    """Keeps what the profiler's native code writes to stderr at every start and stop away from the tables."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _gradient_bytes(run: Run) -> int:
    return sum(part.nbytes for name, part in run().items() if name.startswith("grad_"))
