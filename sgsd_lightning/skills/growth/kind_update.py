"""One update of the items of one kind: judge what is on probation, merge what was drafted, admit on probation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic

from sgsd_lightning.skills.admission import AdmissionSettings, Dropped, judge, over_capacity
from sgsd_lightning.skills.bank import Item, Mistake, Skill, is_dynamic
from sgsd_lightning.skills.evidence import EvidenceLedger
from sgsd_lightning.skills.growth.drafting import leak_of, texts_of
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.merge import MergeSettings, merge_items
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.skills.provenance import SOURCES_KEY, sources_of, union_of_sources, with_sources
from sgsd_lightning.skills.selection import PROBATION, STATUS

SINCE_STEP = "since_step"


@dataclass(frozen=True, kw_only=True)
class MaintenanceSettings:
    """How much an update may change. Numbers are for each kind of item."""

    max_new: int = 5
    """New items of an update; also the most that it may drop for their evidence."""
    capacity: int = 30
    """Dynamic items of a bank; the least useful go first."""
    max_memories: int = 64
    """Successes that the writer is shown, and as many failures; the newest of different problems first."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    merge: MergeSettings = field(default_factory=MergeSettings)

    def __post_init__(self) -> None:
        for name in ("max_new", "capacity", "max_memories"):
            if getattr(self, name) < 1:
                raise ValueError(f"bank_maintenance.settings.{name} must be at least 1; got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class KindUpdate(Generic[Item]):
    items: tuple[Item, ...]
    added: tuple[str, ...]
    admitted: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    unfit: list[dict[str, Any]]
    """What evidence spoke against."""
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateOfKind(Generic[Item]):
    """One update, for the items of one kind."""

    items: Sequence[Item]
    """Of the bank."""
    drafts: Sequence[Item]
    memories: Mapping[str, Memory]
    """By id: what the drafts' sources name."""

    ledger: EvidenceLedger
    writer: SkillWriter
    guard: LeakGuard
    settings: MaintenanceSettings
    step: int
    ids: ItemIds
    unfit_before: Sequence[Mapping[str, Any]]
    deadline: float | None
    min_items: int

    def run(self) -> KindUpdate[Item]:
        """The next items, and how they came about."""
        items = self.items
        spare = max(0, len(items) - self.min_items)
        judged_items, judged = judge(items, self.ledger, self.settings.admission, min(self.settings.max_new, spare))
        merged = merge_items(
            self.drafts,
            self.writer,
            self.settings.merge,
            guard=lambda item: leak_of(texts_of(item), sources_of(item), self.memories, self.guard),
            deadline=self.deadline,
        )
        unfit = _texts_of(judged.dropped, items, self.step)
        kept, unsaid, said = self._unsaid(judged_items, merged.items, list(chain(self.unfit_before, unfit)))
        kept, new = self._absorbed(kept, unsaid)
        new = sorted(new, key=lambda item: -len(sources_of(item)))
        added = [self._on_probation(item) for item in new[: self.settings.max_new]]
        surplus = [
            _reject(item, f"more than {self.settings.max_new} new items") for item in new[self.settings.max_new :]
        ]
        everything = list(chain(kept, added))
        spare = max(0, len(everything) - self.min_items)
        excess = over_capacity(everything, self.ledger, self.settings.capacity)[:spare]
        left_out = {drop.item_id for drop in excess}
        return KindUpdate(
            items=tuple(item for item in everything if item.item_id not in left_out),
            added=tuple(item.item_id for item in added if item.item_id not in left_out),
            admitted=judged.admitted,
            dropped=tuple(chain(judged.dropped, excess)),
            unfit=unfit,
            rejects=tuple(chain(merged.rejects, said, surplus)),
        )

    def _unsaid(
        self, kept: Sequence[Item], drafts: Sequence[Item], gone: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Item], list[Item], list[Reject]]:
        """Drafts that neither the bank says nor what was dropped from it said; dynamic items take up the sources."""
        texts = [item.text for item in kept] + [entry["text"] for entry in gone]
        neighbours = self.settings.merge.similarity.neighbours(list(chain(texts, (draft.text for draft in drafts))))
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
                rejects.append(_reject(draft, f"says what {gone[place - len(kept)]['id']} said, which was dropped"))
                continue
            rejects.append(_reject(draft, f"says what {kept[place].item_id} says"))
            if is_dynamic(kept[place].item_id):
                known[place] = with_sources(known[place], union_of_sources([known[place], draft]))
        return known, new, rejects

    def _absorbed(self, kept: list[Item], new: list[Item]) -> tuple[list[Item], list[Item]]:
        """What the writer makes of the new items beside the dynamic ones.

        Evidence is about a text: where a draft stands for an item of the bank, that item stays as it is, and takes up
        the sources of the new ones.
        """
        dynamic = [item for item in kept if is_dynamic(item.item_id)]
        if not dynamic or not new:
            return kept, new
        by_id = {item.item_id: item for item in chain(dynamic, new)}
        for draft in self.writer.merge(list(chain(dynamic, new)), self.deadline).drafts:
            named = [by_id[source] for source in draft.sources if source in by_id]
            known = [item for item in named if is_dynamic(item.item_id)]
            if known and len(named) > len(known):
                first = max(known, key=lambda item: self.ledger.usefulness(item.item_id).value)
                fresh = [item for item in named if not is_dynamic(item.item_id)]
                by_id[first.item_id] = with_sources(first, union_of_sources(chain([first], fresh)))
                for item in fresh:
                    del by_id[item.item_id]
        return (
            [by_id.get(item.item_id, item) for item in kept],
            [item for item in new if item.item_id in by_id],
        )

    def _on_probation(self, item: Item) -> Item:
        extra = {**item.extra, SOURCES_KEY: list(sources_of(item)), STATUS: PROBATION, SINCE_STEP: self.step}
        return replace(item, extra=extra, **{item.ID_FIELD: self.ids.next()})


def _texts_of(dropped: Iterable[Dropped], items: Sequence[Skill | Mistake], step: int) -> list[dict[str, Any]]:
    """What is remembered of items that went."""
    by_id = {item.item_id: item for item in items}
    return [
        {"id": drop.item_id, "text": by_id[drop.item_id].text, "reason": drop.reason, "step": step} for drop in dropped
    ]


def _reject(item: Skill | Mistake, reason: str) -> Reject:
    return Reject(sources=sources_of(item), reason=reason, text=item.text)
