"""Compares drafts with a bank: known drafts are dropped, and drafts that a writer merges with items join them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from sgsd_lightning.skills.bank import Item, Mistake, Skill, is_dynamic
from sgsd_lightning.skills.evidence import EvidenceLedger
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.provenance import list_sources, unite_sources, with_sources
from sgsd_lightning.skills.similarity import TextSimilarity


def drop_known(
    kept: Sequence[Item], drafts: Sequence[Item], gone: Sequence[Mapping[str, Any]], similarity: TextSimilarity
) -> tuple[list[Item], list[Item], list[Reject]]:
    """Return the bank's items, the drafts that say something new, and the rejected others.

    A draft is known if it duplicates an item of the bank, or one that was dropped from it. A dynamic item receives the
    sources of its duplicates.
    """
    texts = [item.text for item in kept] + [entry["text"] for entry in gone]
    neighbours = similarity.neighbours(list(chain(texts, (draft.text for draft in drafts))))
    known: list[Item] = list(kept)
    new: list[Item] = []
    rejects: list[Reject] = []
    for draft, near in zip(drafts, neighbours[len(texts) :], strict=True):
        places = [place for place in near if place < len(texts)]
        if not places:
            new.append(draft)
            continue
        place = max(places, key=lambda place: (near[place], -place))
        if place >= len(kept):
            reason = f"says what {gone[place - len(kept)]['id']} said, which was dropped"
            rejects.append(reject_item(draft, reason))
            continue
        rejects.append(reject_item(draft, f"says what {kept[place].item_id} says"))
        if is_dynamic(kept[place].item_id):
            known[place] = with_sources(known[place], unite_sources([known[place], draft]))
    return known, new, rejects


def merge_into_bank(
    kept: list[Item], new: list[Item], writer: SkillWriter, ledger: EvidenceLedger, deadline: float | None
) -> tuple[list[Item], list[Item]]:
    """Let the writer merge new items with the bank's dynamic ones; return the bank's items and the remaining new ones.

    Evidence belongs to a text: an item of the bank that is merged with new ones keeps its text and receives their
    sources.

    Raises:
        ModelUnavailableError: from the writer.
    """
    dynamic = [item for item in kept if is_dynamic(item.item_id)]
    if not dynamic or not new:
        return kept, new
    by_id = {item.item_id: item for item in chain(dynamic, new)}
    for draft in writer.merge(list(chain(dynamic, new)), deadline).drafts:
        named = [by_id[source] for source in draft.sources if source in by_id]
        known = [item for item in named if is_dynamic(item.item_id)]
        if known and len(named) > len(known):
            first = max(known, key=lambda item: ledger.usefulness(item.item_id).value)
            fresh = [item for item in named if not is_dynamic(item.item_id)]
            by_id[first.item_id] = with_sources(first, unite_sources(chain([first], fresh)))
            for item in fresh:
                del by_id[item.item_id]
    return (
        [by_id.get(item.item_id, item) for item in kept],
        [item for item in new if item.item_id in by_id],
    )


def reject_item(item: Skill | Mistake, reason: str) -> Reject:
    """Return the record of an item that is not admitted."""
    return Reject(sources=list_sources(item), reason=reason, text=item.text)
