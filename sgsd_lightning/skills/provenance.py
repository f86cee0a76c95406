"""The sources of an item: ids of the memories or items that it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sgsd_lightning.skills.bank import Item, Mistake, Skill

SOURCES_KEY = "sources"
"""The key of an item's ``extra`` that holds its sources, in every bank that this project writes."""


def list_sources(item: Skill | Mistake) -> tuple[str, ...]:
    """Return the ids in ``extra["sources"]``, each once, in order; the item's own id if there are none."""
    return _read_sources(item.extra.get(SOURCES_KEY)) or (item.item_id,)


def unite_sources(items: Iterable[Skill | Mistake]) -> tuple[str, ...]:
    """Return the sources of all items, each once, in the order in which they first appear."""
    return tuple(dict.fromkeys(source for item in items for source in list_sources(item)))


def with_sources(item: Item, sources: Sequence[str]) -> Item:
    """Return the item with these sources; unchanged if it has them already."""
    if tuple(sources) == list_sources(item):
        return item
    return replace(item, extra={**item.extra, SOURCES_KEY: list(sources)})


def _read_sources(found: Any) -> tuple[str, ...]:
    """Return the ids in a value that a bank file has under the key, which may be anything."""
    if not isinstance(found, list | tuple):
        return ()
    return tuple(dict.fromkeys(source for source in found if isinstance(source, str) and source))
