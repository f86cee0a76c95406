"""Applies a writer's answer to a group of items, after checks of each draft."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sgsd_lightning.skills.bank import Item, Mistake, Skill
from sgsd_lightning.skills.growth.writer import Draft, Reject, Written
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.provenance import unite_sources, with_sources

Guard = Callable[[Skill | Mistake], str | None]
"""Returns why an item must not be in a bank; None if it may."""


def apply_answer(
    group: Sequence[Item], written: Written, ids: ItemIds, guard: Guard | None = None
) -> tuple[dict[str, list[Item]], list[Reject]]:
    """Return for the id of each merged item the items that replace it, and the rejects with their reasons.

    A merged item replaces the first of its members; the other members are replaced by nothing. A draft that names a
    single item merges nothing, and that item keeps its text.
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
        fault = _find_fault(draft, members, type(group[0]), replacements)
        if fault is None and len(members) > 1:
            merged = _merge(draft, members, ids)
            fault = guard(merged) if guard else None
            if fault is None:
                replacements |= {member.item_id: [] for member in members}
                replacements[members[0].item_id] = [merged]
        if fault is not None:
            rejects.append(Reject(sources=tuple(draft.sources), reason=fault, text=_text([draft])))
    return replacements, rejects


def _find_fault(draft: Draft, members: Sequence[Item], kind: type[Item], taken: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a draft; None if nothing is."""
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
    """Return the named item that an earlier draft of the same answer names too; None if there is none."""
    twice = [source for source in named if source in taken]
    return f"{', '.join(twice)} stand in an earlier draft of the same answer already" if twice else None


def _merge(draft: Draft, members: Sequence[Item], ids: ItemIds) -> Item:
    kind = type(members[0])
    texts = {name: draft.texts[name] for name in text_fields(kind)}
    item = kind(**{kind.ID_FIELD: ids.next()}, **texts, extra=dict(draft.extra or {}))
    return with_sources(item, unite_sources(members))


def text_fields(kind: type[Skill] | type[Mistake]) -> list[str]:
    """Return the names of the text fields of a kind of item: all but its id and ``extra``."""
    return [entry.name for entry in fields(kind) if entry.name not in (kind.ID_FIELD, "extra")]


def _text(drafts: Sequence[Draft]) -> str:
    return "\n".join(" | ".join(str(text) for text in draft.texts.values()) for draft in drafts)
