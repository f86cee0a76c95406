"""A writer that takes its time, and notes what it was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sgsd_lightning.skills import Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Draft, SkillWriter, Written

FIELDS = {Skill: ("title", "principle", "when_to_apply"), Mistake: ("description", "why_it_happens", "how_to_avoid")}


class SlowWriter(SkillWriter):
    """One draft a memory."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds

    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        for memory in memories:
            with Path("asked.txt").open("a") as file:
                file.write(memory.memory_id + "\n")
            time.sleep(self.seconds)
            kind: type[Skill] | type[Mistake] = Skill if memory.is_success else Mistake
            draft = Draft(kind=kind, texts=dict.fromkeys(FIELDS[kind], "be careful"), sources=(memory.memory_id,))
            yield Written(sources=(memory.memory_id,), drafts=(draft,))

    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        return Written(sources=tuple(item.item_id for item in items))
