"""Duplicates: items of one kind that say the same, exactly or nearly, and the one that stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from sgsd_lightning.skills.bank import Item, Mistake, Skill, is_dynamic
from sgsd_lightning.skills.provenance import union_of_sources, with_sources
from sgsd_lightning.skills.similarity import TextSimilarity


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster(Generic[Item]):
    """An item and those that it makes superfluous."""

    representative: Item
    """As it was, whatever it stands for."""
    duplicates: tuple[Item, ...] = ()
    """In their order; each over the threshold with the representative, or the same but for spaces and case."""

    def merged(self) -> Item:
        """The representative with the sources of all; unchanged where it stands for itself alone."""
        return with_sources(self.representative, union_of_sources([self.representative, *self.duplicates]))


def clusters_of(items: Sequence[Item], similarity: TextSimilarity) -> list[Cluster[Item]]:
    """Every item once: as the representative of a cluster or as one of its duplicates.

    Clusters are stars: the item with the most neighbours over the threshold represents them, and nothing is a duplicate
    of something that is not similar to itself. Single linkage chains: at 0.45 it joins 40 of the 505 published
    candidates whose members are down to 0.14 from their centre. Complete linkage asks more than is needed, since all
    that remains of a cluster is its representative (at 0.6 it leaves 489 of them, stars 483), and leaves
    representatives that are over the threshold with one another, so that a second time would go on.

    Static items represent before dynamic ones. Equal claims go to the earlier item. Clusters stand in the order of
    their representatives.
    """
    firsts, copies = _exact(items)
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
    return _collected(items, firsts, copies, _nearest(representative_of, neighbours))


def without_duplicates(items: Sequence[Item], similarity: TextSimilarity) -> list[Item]:
    """What is left, in order, each with the sources of all that it stands for.

    No two of them are over the threshold, so that doing it again changes nothing: it is done again here until that is
    so, because the last bits of a similarity depend on the order of its sums.
    """
    left = list(items)
    while True:
        clusters = clusters_of(left, similarity)
        if len(clusters) == len(left):
            return left
        left = [cluster.merged() for cluster in clusters]


def _exact(items: Sequence[Item]) -> tuple[list[int], dict[int, list[int]]]:
    """Places of items that differ by more than spaces and case, and for each of them the places of its copies."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(plain_text(item), []).append(place)
    firsts: dict[int, list[int]] = {}
    for places in groups.values():
        first = min(places, key=lambda place: (is_dynamic(items[place].item_id), place))
        firsts[first] = [place for place in places if place != first]
    return sorted(firsts), firsts


def plain_text(item: Skill | Mistake) -> str:
    """An item's text without what makes no difference: case and runs of spaces."""
    return " ".join(item.text.casefold().split())


def _nearest(representative_of: dict[int, int], neighbours: Sequence[dict[int, float]]) -> dict[int, int]:
    """Each item with the most similar of the representatives that it is over the threshold with."""
    representatives = set(representative_of.values())
    nearest = {}
    for index in representative_of:
        near = [other for other in neighbours[index] if other in representatives]
        is_representative = index in representatives
        nearest[index] = index if is_representative else max(near, key=lambda o: (neighbours[index][o], -o))
    return nearest


def _collected(
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
