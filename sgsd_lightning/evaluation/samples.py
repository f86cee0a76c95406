"""Samples of an evaluation, written one per line as they end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sgsd_lightning.files import whole_records
from sgsd_lightning.texts.strict_json import shorten
from sgsd_lightning.types import JudgedRollout

SAMPLE_FILES = "samples*.jsonl"

SampleKey = tuple[str, str, int]
"""Problem set, problem and index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One judged completion of one problem."""

    problem_set: str
    problem_id: str
    index: int
    """Which of the problem's samples, from 0."""
    is_correct: bool
    answer: str | None
    """The answer found in the completion; None where there was none."""
    reference_answer: str
    completion_tokens: int
    finish_reason: str
    sources: tuple[str, ...]
    """Ids of the items that the prompt showed beside the problem."""
    completion: str

    @property
    def key(self) -> SampleKey:
        """Problem set, problem and index, which identify a sample."""
        return (self.problem_set, self.problem_id, self.index)


SAMPLE_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("problem_set", "problem_id", "reference_answer", "finish_reason", "completion"), (str, "a text")),
    **dict.fromkeys(("index", "completion_tokens"), (int, "a whole number")),
    "is_correct": (bool, "true or false"),
    "answer": ((str, type(None)), "a text or null"),
    "sources": (list, "a list of ids"),
}


def to_sample(problem_set: str, judged: JudgedRollout, sources: Sequence[str]) -> Sample:
    """Make a sample from a judged rollout."""
    rollout, verdict = judged.rollout, judged.verdict
    return Sample(
        problem_set=problem_set,
        problem_id=rollout.problem.problem_id,
        index=rollout.sample_index,
        is_correct=verdict.accepted is True,
        answer=verdict.answer,
        reference_answer=rollout.problem.answer,
        completion_tokens=len(rollout.completion_ids),
        finish_reason=str(rollout.finish_reason),
        sources=tuple(sources),
        completion=rollout.completion_text,
    )


def sample_line(sample: Sample) -> str:
    """Return one line of a file of samples, its line break included."""
    return json.dumps(asdict(sample), ensure_ascii=False) + "\n"


def load_samples(folder: Path) -> list[Sample]:
    """Read all samples of an evaluation from all files of its folder, each once.

    Raises:
        FileNotFoundError: if there is no file of samples.
        ValueError: naming the file, the line and the field of the first thing that is wrong.
    """
    paths = sorted(folder.glob(SAMPLE_FILES))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no {SAMPLE_FILES}: it is not the folder of an evaluation")
    samples: dict[SampleKey, Sample] = {}
    for path in paths:
        for number, record in whole_records(path):
            sample = _parse_sample(record, f"{path}:{number}")
            samples.setdefault(sample.key, sample)
    return list(samples.values())


def _parse_sample(record: Any, where: str) -> Sample:
    names = {entry.name for entry in fields(Sample)}
    if not isinstance(record, dict) or names - record.keys():
        missing = ", ".join(sorted(names - record.keys())) if isinstance(record, dict) else "everything"
        raise ValueError(f"{where}: not a sample of an evaluation; missing: {missing}")
    for name, (kinds, what) in SAMPLE_KINDS.items():
        if not isinstance(record[name], kinds) or (isinstance(record[name], bool) and kinds is int):
            raise ValueError(f"{where}: the field {name!r} must be {what}; got {shorten(record[name])}")
    values: dict[str, Any] = {name: record[name] for name in names}
    return Sample(**{**values, "sources": tuple(values["sources"])})
