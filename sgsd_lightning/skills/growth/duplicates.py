"""Duplicates: clusters of items of one kind with the same or a similar text, and their representatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from sgsd_lightning.skills.bank import Item, Mistake, Skill, is_dynamic
from sgsd_lightning.skills.provenance import unite_sources, with_sources
from sgsd_lightning.skills.similarity import TextSimilarity


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster(Generic[Item]):
    """A representative and its duplicates."""

    representative: Item
    """Unchanged: without the sources of its duplicates."""
    duplicates: tuple[Item, ...] = ()
    """In order; each is similar to the representative above the threshold, or equal up to spaces and case."""

    def merged(self) -> Item:
        """The representative with the sources of all; unchanged without duplicates."""
        return with_sources(self.representative, unite_sources([self.representative, *self.duplicates]))


def find_clusters(items: Sequence[Item], similarity: TextSimilarity) -> list[Cluster[Item]]:
    """Cluster items; every item is in one cluster, as its representative or as a duplicate.

    Clusters are stars: the item with the most neighbours above the threshold is the representative, and each duplicate
    is similar to its representative. Single linkage would chain: at 0.45 it joins 40 of the 505 published candidates,
    some with similarity 0.14 to their centre. Complete linkage is stricter than needed, since only the representative
    remains (at 0.6 it leaves 489 items, stars leave 483), and it leaves representatives that are similar to one
    another, so that a second pass would merge more.

    Static items are chosen before dynamic ones, and earlier items before later ones. Clusters are in the order of
    their representatives.
    """
    firsts, copies = _find_copies(items)
    neighbours = similarity.neighbours([items[place].text for place in firsts])
    claim = sorted(
        range(len(firsts)), key=lambda index: (is_dynamic(items[firsts[index]].item_id), -len(neighbours[index]), index)
    )
    representative_of: dict[int, int] = {}
    for index in claim:
        if index not in representative_of:
            representative_of[index] = index
            for neighbour in neighbours[index]:
                representative_of.setdefault(neighbour, index)
    return _collect_clusters(items, firsts, copies, _find_nearest(representative_of, neighbours))


def without_duplicates(items: Sequence[Item], similarity: TextSimilarity) -> list[Item]:
    """Return the representatives, in order, each with the sources of its duplicates.

    No two of them are similar above the threshold, so that the function is idempotent. It repeats until that holds,
    because the last bits of a similarity depend on the order of its sums.
    """
    left = list(items)
    while True:
        clusters = find_clusters(left, similarity)
        if len(clusters) == len(left):
            return left
        left = [cluster.merged() for cluster in clusters]


def _find_copies(items: Sequence[Item]) -> tuple[list[int], dict[int, list[int]]]:
    """Return the indices of items that differ by more than spaces and case, and for each the indices of its copies."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(plain_text(item), []).append(place)
    firsts: dict[int, list[int]] = {}
    for places in groups.values():
        first = min(places, key=lambda place: (is_dynamic(items[place].item_id), place))
        firsts[first] = [place for place in places if place != first]
    return sorted(firsts), firsts


def plain_text(item: Skill | Mistake) -> str:
    """Return an item's text in lower case with single spaces."""
    return " ".join(item.text.casefold().split())


def _find_nearest(representative_of: dict[int, int], neighbours: Sequence[dict[int, float]]) -> dict[int, int]:
    """Map each item to the most similar representative above the threshold."""
    representatives = set(representative_of.values())
    nearest = {}
    for index in representative_of:
        near = [other for other in neighbours[index] if other in representatives]
        is_representative = index in representatives
        nearest[index] = index if is_representative else max(near, key=lambda o: (neighbours[index][o], -o))
    return nearest


def _collect_clusters(
    items: Sequence[Item], firsts: Sequence[int], copies: dict[int, list[int]], representative_of: dict[int, int]
) -> list[Cluster[Item]]:
    members: dict[int, list[int]] = {firsts[index]: [] for index in sorted(set(representative_of.values()))}
    for index, representative in representative_of.items():
        own = [] if index == representative else [firsts[index]]
        members[firsts[representative]] += own + copies[firsts[index]]
    return [
        Cluster(representative=items[place], duplicates=tuple(items[other] for other in sorted(others)))
        for place, others in members.items()
    ]
