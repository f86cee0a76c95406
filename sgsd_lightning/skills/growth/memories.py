"""Memories: judged completions of problems, from which skills and mistakes are written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sgsd_lightning.files import whole_records
from sgsd_lightning.texts.strict_json import shorten
from sgsd_lightning.types import JudgedRollout


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """One judged completion: a success (outcome +1) or a failure (-1)."""

    memory_id: str
    """Unique among the memories of a file or of a run."""
    problem_id: str
    problem: str
    reference_answer: str
    """The published answer: a writer may see it, an item must not repeat it."""
    completion: str
    answer: str | None
    """The answer found in the completion; None where there was none."""
    reward: float
    outcome: int
    """+1 accepted, -1 rejected."""
    finish_reason: str

    @property
    def is_success(self) -> bool:
        """Whether the verifier accepted the completion."""
        return self.outcome > 0


def to_memory(judged: JudgedRollout, memory_id: str) -> Memory | None:
    """Make a memory from a judged rollout; None if its outcome is 0."""
    rollout, verdict = judged.rollout, judged.verdict
    if verdict.outcome == 0 or verdict.reward is None:
        return None
    return Memory(
        memory_id=memory_id,
        problem_id=rollout.problem.problem_id,
        problem=rollout.problem.text,
        reference_answer=rollout.problem.answer,
        completion=rollout.completion_text,
        answer=verdict.answer,
        reward=verdict.reward,
        outcome=verdict.outcome,
        finish_reason=str(rollout.finish_reason),
    )


def memory_line(memory: Memory) -> str:
    """Return one line of a memory file, without its line break."""
    return json.dumps(asdict(memory), ensure_ascii=False)


def load_memories(path: str | Path) -> list[Memory]:
    """Read a memory file (JSON Lines).

    A last line that was cut off when its writer was stopped is left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, the line and the field of the first thing that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"memory file {path} does not exist (looked in {Path.cwd()})")
    memories: list[Memory] = []
    seen: set[str] = set()
    for number, record in whole_records(path):
        memory = _parse_memory(record, f"{path}:{number}")
        if memory.memory_id in seen:
            raise ValueError(f"{path}:{number}: the memory_id {memory.memory_id!r} stands twice; ids must be unique")
        seen.add(memory.memory_id)
        memories.append(memory)
    return memories


def _parse_memory(record: Any, where: str) -> Memory:
    names = {entry.name for entry in fields(Memory)}
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a memory must be a JSON object; got {type(record).__name__}")
    for name in sorted(names - record.keys()):
        raise ValueError(f"{where}: the field {name!r} is missing; a memory has {', '.join(sorted(names))}")
    if record["outcome"] not in (1, -1):
        raise ValueError(f"{where}: the field 'outcome' must be 1 or -1; got {shorten(record['outcome'])}")
    for name in ("memory_id", "problem_id", "problem", "reference_answer", "completion", "finish_reason"):
        if not isinstance(record[name], str):
            raise ValueError(f"{where}: the field {name!r} must be a text; got {shorten(record[name])}")
    if not isinstance(record["answer"], str | None):
        raise ValueError(f"{where}: the field 'answer' must be a text or null; got {shorten(record['answer'])}")
    if isinstance(record["reward"], bool) or not isinstance(record["reward"], int | float):
        raise ValueError(f"{where}: the field 'reward' must be a number; got {shorten(record['reward'])}")
    return Memory(**{name: record[name] for name in names})
