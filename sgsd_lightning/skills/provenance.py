"""Where an item comes from: the ids of the memories or items that it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sgsd_lightning.skills.bank import Item, Mistake, Skill

SOURCES_KEY = "sources"
"""The key of an item's ``extra`` that holds its sources, in every bank that this project writes."""


def sources_of(item: Skill | Mistake) -> tuple[str, ...]:
    """The ids in ``extra["sources"]``, each once, in order; the item's own id where it has none."""
    return _listed(item.extra.get(SOURCES_KEY)) or (item.item_id,)


def union_of_sources(items: Iterable[Skill | Mistake]) -> tuple[str, ...]:
    """The sources of all items, each once, in the order in which they first appear."""
    return tuple(dict.fromkeys(source for item in items for source in sources_of(item)))


def with_sources(item: Item, sources: Sequence[str]) -> Item:
    """The item with these sources; unchanged where they are what it says already."""
    if tuple(sources) == sources_of(item):
        return item
    return replace(item, extra={**item.extra, SOURCES_KEY: list(sources)})


def _listed(found: Any) -> tuple[str, ...]:
    """What a bank file has under the key, which may be anything; only ids count."""
    if not isinstance(found, list | tuple):
        return ()
    return tuple(dict.fromkeys(source for source in found if isinstance(source, str) and source))
