"""The steps in their order, the last of them worth least, how much time each has, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.first_contact.verdict import Found, Need, Verdict
from benchmarks.first_contact.verdicts import (
    assembler,
    attention_backends,
    chunk_sizes,
    compiled,
    counters,
    goals,
    kernel_values,
    loading,
    machine,
    sanitizer,
    suite,
    training,
)

COLD_START_SECONDS = 30.0
"""What imports may take beyond a step's time where files come from a slow disk."""
LEAST_SHARE = 0.5
"""Of its own time that a step must have to begin."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the plan."""

    number: str
    probe: str
    """The module of `benchmarks.first_contact.probes` that measures."""
    title: str
    seconds: float
    """An H100's, by estimate, imports and compilation included."""
    judge: Callable[[Found], Verdict]
    """Total: it also takes what was measured before a probe was ended, which may be nothing."""
    if_broken: str
    """What follows where it crashes, as the end of a sentence."""
    needs: tuple[Need, ...] = ()


PLAN = (
    Step("1", "machine", "Machine and versions", 20, machine.judge, machine.IF_BROKEN),
    Step("2", "loading", "A policy loads, and packed attention agrees", 20, loading.judge, loading.IF_BROKEN),
    Step("3", "kernel_values", "Shipped tiles beside float64", 90, kernel_values.judge, kernel_values.IF_BROKEN),
    Step("4a", "assembler", "Another assembler", 50, assembler.judge, assembler.IF_BROKEN, ("gpu", "compiler")),
    Step("4b", "sanitizer", "Memory accesses", 40, sanitizer.judge, sanitizer.IF_BROKEN, ("gpu", "compiler")),
    Step("5a", "kernel_tests", "Tests of the kernels", 100, suite.judge, suite.IF_BROKEN, ("gpu", "compiler")),
    Step("5b", "attention_tests", "Tests of packed attention", 20, suite.judge, suite.IF_BROKEN, ("gpu",)),
    Step("6", "chunk_sizes", "Sizes and tables", 60, chunk_sizes.judge, chunk_sizes.IF_BROKEN, ("gpu", "compiler")),
    Step("7", "counters", "Hardware counters", 40, counters.judge, counters.IF_BROKEN, ("gpu", "compiler")),
    Step(
        "8",
        "attention_backends",
        "cuDNN's attention",
        20,
        attention_backends.judge,
        attention_backends.IF_BROKEN,
        ("gpu",),
    ),
    Step("9a", "goals", "The goals", 50, goals.judge, goals.IF_BROKEN, ("gpu", "compiler")),
    Step("9b", "goals_largest", "The largest size", 50, goals.judge, goals.IF_BROKEN, ("gpu", "compiler")),
    Step("10", "training", "Training on the device", 40, training.judge, training.IF_BROKEN, ("gpu",)),
    Step("C", "compiled", "Compilation for Hopper", 240, compiled.judge, compiled.IF_BROKEN, ("cpu only",)),
)
"""The ten steps; C stands in for what needs a GPU where there is none."""


def seconds_for(step: Step, later: Sequence[Step], remaining: float) -> float | None:
    """How long ``step`` may take of the ``remaining`` seconds; None where that is too little to begin.

    Its own time and that of a cold start, or its even share of what the plan is ahead of its times where that is more.
    Time is not taken from a step for ``later`` ones, which are worth less.
    """
    if remaining < LEAST_SHARE * step.seconds:
        return None
    stretch = remaining / (step.seconds + sum(other.seconds for other in later))
    return min(remaining, max(step.seconds + COLD_START_SECONDS, step.seconds * stretch))
