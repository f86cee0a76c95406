"""From memories to candidates: a writer drafts, guards refuse leaks, the rest become items outside of any bank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sgsd_lightning.skills.bank import Item, Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.merge_answer import text_fields
from sgsd_lightning.skills.growth.writer import Draft, Reject, SkillWriter
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.skills.provenance import SOURCES_KEY


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """The candidates from some memories, and the rejects."""

    skills: tuple[Skill, ...]
    mistakes: tuple[Mistake, ...]
    memories: Mapping[str, Memory]
    """By id; the items' sources name them."""
    rejects: tuple[Reject, ...]
    num_drafts: int
    num_leaks: int


def draft_candidates(
    memories: Sequence[Memory], writer: SkillWriter, guard: LeakGuard, deadline: float | None = None
) -> Candidates:
    """Let a writer draft from every memory, and keep the drafts that reveal nothing.

    The result is in the order of the memories, whatever the order of the answers.

    Raises:
        ModelUnavailableError: when the writer's model is unavailable.
    """
    by_id = {memory.memory_id: memory for memory in memories}
    place = {memory_id: index for index, memory_id in enumerate(by_id)}
    written = sorted(writer.extract(memories, deadline), key=lambda part: place.get(part.sources[0], len(place)))
    drafts = [draft for part in written for draft in part.drafts]
    kept, leaking = refuse_leaks(drafts, by_id, guard)
    numbered = [(f"draft_{number:06d}", draft) for number, draft in enumerate(kept, start=1)]
    return Candidates(
        skills=to_items(Skill, numbered),
        mistakes=to_items(Mistake, numbered),
        memories=by_id,
        rejects=(*(reject for part in written for reject in part.rejects), *leaking),
        num_drafts=len(drafts),
        num_leaks=len(leaking),
    )


def refuse_leaks(
    drafts: Sequence[Draft], memories: Mapping[str, Memory], guard: LeakGuard
) -> tuple[list[Draft], list[Reject]]:
    """Return the drafts that reveal nothing, and a reject for each of the others, both in their order."""
    kept, rejects = [], []
    for draft in drafts:
        leak = find_leak(draft.texts, draft.sources, memories, guard)
        if leak is None:
            kept.append(draft)
        else:
            rejects.append(Reject(sources=draft.sources, reason=leak, text=" | ".join(draft.texts.values())))
    return kept, rejects


def find_leak(
    texts: Mapping[str, str], sources: Sequence[str], memories: Mapping[str, Memory], guard: LeakGuard
) -> str | None:
    """Return what a text reveals: the answer of one of the memories that it comes from, or an evaluation problem."""
    for source in sources:
        memory = memories.get(source)
        answers = (memory.problem, memory.reference_answer) if memory else ("", "")
        reason = guard.check(texts.values(), *answers)
        if reason is not None:
            return reason
    return None


def item_texts(item: Skill | Mistake) -> dict[str, str]:
    """Return an item's texts by field, without its id."""
    return {name: getattr(item, name) for name in text_fields(type(item))}


def to_items(kind: type[Item], drafts: Iterable[tuple[str, Draft]]) -> tuple[Item, ...]:
    """Make items of this kind from pairs of an id and a draft."""
    return tuple(
        kind(
            **{kind.ID_FIELD: item_id},
            **draft.texts,
            extra={**(draft.extra or {}), SOURCES_KEY: list(draft.sources)},
        )
        for item_id, draft in drafts
        if draft.kind is kind
    )
