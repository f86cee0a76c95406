"""Collects the samples of an evaluation; each is judged and written as soon as it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sgsd_lightning.evaluation.samples import SAMPLE_FILES, Sample, load_samples, sample_line, to_sample
from sgsd_lightning.files import keep_whole_lines
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.rollouts.base import Wanted
from sgsd_lightning.types import Problem

REQUESTS_AT_A_TIME = 1024
"""Bounds memory: a request's random numbers are drawn ahead, 8 bytes per possible token."""


class WantedSample(NamedTuple):
    """A sample to collect."""

    problem_set: str
    problem: Problem
    number: int
    """Which of the problem's samples, from 0."""


def wanted_samples(
    sets: Mapping[str, Sequence[Problem]], num_samples: int, shard: tuple[int, int]
) -> list[WantedSample]:
    """List the first sample of every problem, then the second and so on, so that early results cover all problems.

    Args:
        sets: Problems by the name of their set.
        num_samples: Of each problem.
        shard: (i, n) takes every n-th problem from the i-th on.
    """
    problems = [(name, problem) for name, of_set in sets.items() for problem in of_set]
    own = problems[shard[0] :: shard[1]]
    return [WantedSample(name, problem, number) for number in range(num_samples) for name, problem in own]


def samples_so_far(folder: Path) -> list[Sample]:
    """Read the samples that earlier calls and other shards have written."""
    return load_samples(folder) if any(folder.glob(SAMPLE_FILES)) else []


def missing_samples(wanted: Sequence[WantedSample], done: Sequence[Sample]) -> list[WantedSample]:
    """Return the samples that are still to collect."""
    keys = {sample.key for sample in done}
    return [entry for entry in wanted if (entry.problem_set, entry.problem.problem_id, entry.number) not in keys]


def collect_samples(
    module: SelfDistillation,
    wanted: Sequence[WantedSample],
    path: Path,
    on_sample: Callable[[Sample], None] = lambda sample: None,
) -> None:
    """Append samples to ``path`` as their completions end; the module's model is on its device already.

    A sample depends on the seed, the problem and its index alone (up to rounding): not on the other samples, nor on
    whether the evaluation was stopped in between.

    Args:
        module: Policy, prompts, evaluation settings and verifier.
        wanted: The samples to collect.
        path: JSON Lines.
        on_sample: Called with each sample.
    """
    if path.exists():  # this process's own file: another shard may be in the middle of a line of its
        keep_whole_lines(path)
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(wanted), REQUESTS_AT_A_TIME):
            some = wanted[start : start + REQUESTS_AT_A_TIME]
            entries = [Wanted(entry.problem, entry.number) for entry in some]
            # once for all of them: a retriever may take long
            sources = module.evaluation_rollouts.sources(entries)
            stream = module.evaluation_rollouts.stream(module.learner, entries, stream="evaluation")
            for place, rollout in stream:
                (judged,) = module.evaluation_verifier.verify([rollout])
                sample = to_sample(some[place].problem_set, judged, sources[place])
                file.write(sample_line(sample))
                file.flush()
                on_sample(sample)
