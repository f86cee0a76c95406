"""A writer that does as it is told, for tests of what surrounds writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Draft, Reject, SkillWriter, Written

SKILL_FIELDS = ("title", "principle", "when_to_apply")
MISTAKE_FIELDS = ("description", "why_it_happens", "how_to_avoid")


def draft(kind: type[Skill] | type[Mistake], text: str, *sources: str) -> Draft:
    """All fields say the same."""
    names = SKILL_FIELDS if kind is Skill else MISTAKE_FIELDS
    return Draft(kind=kind, texts=dict.fromkeys(names, text), sources=sources)


def memory(memory_id: str, is_success: bool = True, answer: str = "73", problem: str = "What is it?") -> Memory:
    return Memory(
        memory_id=memory_id,
        problem_id=f"problem of {memory_id}",
        problem=problem,
        reference_answer=answer,
        completion="...",
        answer=answer if is_success else "0",
        reward=float(is_success),
        outcome=1 if is_success else -1,
        finish_reason="stopped",
    )


class ScriptedWriter(SkillWriter):
    """Says of each memory what ``say`` says of it; a memory of which it says nothing is a reject.

    Args:
        say: From a memory to the text of its draft, or None.
        unite: From the items of a group to the ids that say the same, and what they say.
        backwards: Answer the last memory first.
    """

    def __init__(
        self,
        say: Callable[[Memory], str | None],
        unite: Callable[[Sequence[Skill] | Sequence[Mistake]], list[tuple[list[str], str]]] = lambda items: [],
        backwards: bool = False,
    ) -> None:
        self.say = say
        self.unite = unite
        self.backwards = backwards
        self.shown: list[Memory] = []

    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        self.shown += memories
        for shown in reversed(memories) if self.backwards else memories:
            source = (shown.memory_id,)
            text = self.say(shown)
            if text is None:
                yield Written(sources=source, rejects=(Reject(sources=source, reason="nothing said", text=""),))
            else:
                kind: type[Skill] | type[Mistake] = Skill if shown.is_success else Mistake
                yield Written(sources=source, drafts=(draft(kind, text, *source),))

    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        drafts = tuple(draft(type(items[0]), text, *ids) for ids, text in self.unite(items))
        return Written(sources=tuple(item.item_id for item in items), drafts=drafts)
