"""What a writer's answer to a group of items does to them, as far as it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sgsd_lightning.skills.bank import Item, Mistake, Skill
from sgsd_lightning.skills.growth.writer import Draft, Reject, Written
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.provenance import union_of_sources, with_sources

Guard = Callable[[Skill | Mistake], str | None]
"""Why an item must not stand in a bank; None where it may."""


def applied_answer(
    group: Sequence[Item], written: Written, ids: ItemIds, guard: Guard | None = None
) -> tuple[dict[str, list[Item]], list[Reject]]:
    """For the ids of items that are gone, what stands in their place; and what was rejected, with the reasons.

    A merged item takes the place of the first item that it stands for; nothing takes the place of the others. A draft
    that names only one item merges nothing, and that item keeps its own words.
    """
    rejects: list[Reject] = list(written.rejects)
    if len(written.drafts) > len(group):
        reason = f"{len(written.drafts)} drafts for {len(group)} items: a merge must not make them more"
        return {}, [
            *rejects,
            Reject(sources=tuple(item.item_id for item in group), reason=reason, text=_text(written.drafts)),
        ]
    replacements: dict[str, list[Item]] = {}
    for draft in written.drafts:
        members = [item for item in group if item.item_id in draft.sources]
        fault = _fault(draft, members, type(group[0]), replacements)
        if fault is None and len(members) > 1:
            merged = _merged(draft, members, ids)
            fault = guard(merged) if guard else None
            if fault is None:
                replacements |= {member.item_id: [] for member in members}
                replacements[members[0].item_id] = [merged]
        if fault is not None:
            rejects.append(Reject(sources=tuple(draft.sources), reason=fault, text=_text([draft])))
    return replacements, rejects


def _fault(draft: Draft, members: Sequence[Item], kind: type[Item], taken: Mapping[str, Any]) -> str | None:
    """What is wrong with a draft, None for nothing."""
    if draft.kind is not kind:
        return f"a {draft.kind.__name__.lower()} among items that are each a {kind.__name__.lower()}"
    fault = find_missing_text(draft.texts, kind)
    if fault is not None:
        return fault
    if not members:
        return "it names none of the items that were shown"
    return find_repeated_source([member.item_id for member in members], taken)


def find_missing_text(record: Mapping[str, Any], kind: type[Skill] | type[Mistake]) -> str | None:
    """Return what is wrong with the first text field that is missing or empty; None if all are there."""
    for name in text_fields(kind):
        value = record.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"the field {name!r} must be a non-empty text; got {value!r:.80}"
    return None


def find_repeated_source(named: Sequence[str], taken: Container[str]) -> str | None:
    """Return which of the named items an earlier draft of the same answer stands for; None if there is none."""
    twice = [source for source in named if source in taken]
    return f"{', '.join(twice)} stand in an earlier draft of the same answer already" if twice else None


def _merged(draft: Draft, members: Sequence[Item], ids: ItemIds) -> Item:
    kind = type(members[0])
    texts = {name: draft.texts[name] for name in text_fields(kind)}
    item = kind(**{kind.ID_FIELD: ids.next()}, **texts, extra=dict(draft.extra or {}))
    return with_sources(item, union_of_sources(members))


def text_fields(kind: type[Skill] | type[Mistake]) -> list[str]:
    """The names of what a kind of item says: its fields without id and extra."""
    return [entry.name for entry in fields(kind) if entry.name not in (kind.ID_FIELD, "extra")]


def _text(drafts: Sequence[Draft]) -> str:
    return "\n".join(" | ".join(str(text) for text in draft.texts.values()) for draft in drafts)
