"""Go through the plan: every step that can be run is, whatever became of those before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.first_contact.attempts import Attempt
from benchmarks.first_contact.failures import cause_of
from benchmarks.first_contact.plan import Step, seconds_for
from benchmarks.first_contact.verdict import Need, Verdict

Run = Callable[[Step, float, Mapping[str, str]], Attempt]
"""(step, seconds, environment) -> what became of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One step with its verdict; without an attempt where it was not tried."""

    step: Step
    verdict: Verdict
    attempt: Attempt | None = None


def go_through(
    steps: Sequence[Step],
    minutes: float,
    run: Run,
    report: Callable[[Sequence[Entry]], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Entry]:
    """The entries of all ``steps``; ``report`` is called with those so far after every one."""
    deadline = clock() + 60 * minutes
    environment: dict[str, str] = {}
    lacks: dict[Need, str] = {"cpu only": "it stands in for steps that need a GPU, and there is one"}
    entries: list[Entry] = []
    for index, step in enumerate(steps):
        later = [other for other in steps[index + 1 :] if _why_not(other, lacks) is None]
        entry = _try(step, seconds_for(step, later, deadline - clock()), lacks, environment, run)
        environment |= entry.verdict.environment
        lacks |= entry.verdict.lacks
        if "gpu" in entry.verdict.lacks:
            lacks.pop("cpu only", None)
        entries.append(entry)
        report(entries)
    return entries


def verdict_of(step: Step, attempt: Attempt) -> Verdict:
    """The step's own verdict, under what ended it where it did not come to its end."""
    own = step.judge(attempt.found)
    if attempt.ending == "finished":
        return own
    so_far = f"; until then: {own.sentence}" if own.outcome != "skipped" else "."
    if attempt.ending == "timed out":
        outcome = "skipped" if own.outcome in ("good", "skipped") else own.outcome
        sentence = f"It was still at {attempt.at} after {attempt.seconds:.0f} s and was ended{so_far}"
        return Verdict(outcome, sentence, own.environment, own.lacks)
    cause = cause_of(attempt.returncode, attempt.tail)
    sentence = f"It crashed at {attempt.at} by {cause}: {step.if_broken}{so_far}"
    return Verdict("bad", sentence, own.environment, own.lacks)


def _try(
    step: Step, seconds: float | None, lacks: Mapping[Need, str], environment: Mapping[str, str], run: Run
) -> Entry:
    reason = _why_not(step, lacks)
    if reason is not None:
        return Entry(step, Verdict("skipped", f"Not tried: {reason}."))
    if seconds is None:
        return Entry(step, Verdict("skipped", f"Not tried: of its {step.seconds:.0f} s less than half were left."))
    attempt = run(step, seconds, environment)
    return Entry(step, verdict_of(step, attempt), attempt)


def _why_not(step: Step, lacks: Mapping[Need, str]) -> str | None:
    return next((lacks[need] for need in step.needs if need in lacks), None)
