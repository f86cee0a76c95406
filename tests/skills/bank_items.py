"""Items and scripted writers for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Draft, SkillWriter, Written


def skill(item_id: str, text: str, extra: Mapping[str, Any] | None = None) -> Skill:
    """A skill whose title says everything."""
    return Skill(skill_id=item_id, title=text, principle="and", when_to_apply="the", extra=extra or {})


def mistake(item_id: str, text: str, extra: Mapping[str, Any] | None = None) -> Mistake:
    """A mistake whose description says everything."""
    return Mistake(mistake_id=item_id, description=text, why_it_happens="and", how_to_avoid="the", extra=extra or {})


def draft_of(items: Sequence[Skill], text: str = "merged") -> Draft:
    """A draft that stands for these skills."""
    texts = {"title": text, "principle": "and", "when_to_apply": "the"}
    return Draft(kind=Skill, texts=texts, sources=tuple(item.item_id for item in items))


class ScriptedWriter(SkillWriter):
    """Merges as a function says, and remembers the groups that it was shown."""

    def __init__(self, answer: Callable[[Sequence[Any]], Written]) -> None:
        self.answer = answer
        self.groups: list[tuple[str, ...]] = []

    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        raise NotImplementedError

    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        self.groups.append(tuple(item.item_id for item in items))
        return self.answer(items)
