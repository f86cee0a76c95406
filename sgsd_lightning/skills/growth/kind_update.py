"""One update of the items of one kind: judge items on probation, merge drafts, admit new items on probation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic

from sgsd_lightning.skills.admission import AdmissionSettings, Dropped, judge, over_capacity
from sgsd_lightning.skills.bank import Item, Mistake, Skill
from sgsd_lightning.skills.evidence import EvidenceLedger
from sgsd_lightning.skills.growth.drafting import find_leak, item_texts
from sgsd_lightning.skills.growth.known_items import drop_known, merge_into_bank, reject_item
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.merge import MergeSettings, merge_items
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.skills.provenance import SOURCES_KEY, list_sources
from sgsd_lightning.skills.selection import PROBATION, STATUS
from sgsd_lightning.types.arguments import require_at_least

SINCE_STEP = "since_step"


@dataclass(frozen=True, kw_only=True)
class MaintenanceSettings:
    """How much an update may change. Numbers are per kind of item."""

    max_new: int = 5
    """The most items that an update adds, and the most that it drops for their evidence."""
    capacity: int = 30
    """The most dynamic items of a bank; the least useful are dropped first."""
    max_memories: int = 64
    """The most successes that the writer is shown, and as many failures; the newest of different problems first."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    merge: MergeSettings = field(default_factory=MergeSettings)

    def __post_init__(self) -> None:
        for name in ("max_new", "capacity", "max_memories"):
            require_at_least(1, f"bank_maintenance.settings.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class KindUpdate(Generic[Item]):
    """The next items of one kind, and the changes that led to them."""

    items: tuple[Item, ...]
    added: tuple[str, ...]
    admitted: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    unfit: list[dict[str, Any]]
    """Records of the items that were dropped for their evidence."""
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateContext:
    """The arguments that the updates of both kinds share."""

    memories: Mapping[str, Memory]
    """By id; the drafts' sources name them."""
    ledger: EvidenceLedger
    writer: SkillWriter
    guard: LeakGuard
    settings: MaintenanceSettings
    step: int
    ids: ItemIds
    unfit_before: Sequence[Mapping[str, Any]]
    deadline: float | None
    min_items: int

    def num_spare(self, items: Sequence[Skill] | Sequence[Mistake]) -> int:
        """Return how many of these items may be dropped."""
        return max(0, len(items) - self.min_items)


def update_kind(items: Sequence[Item], drafts: Sequence[Item], context: UpdateContext) -> KindUpdate[Item]:
    """Judge the bank's items of one kind, deduplicate the drafts, admit what is new on probation.

    Raises:
        ModelUnavailableError: from the writer.
    """
    settings, ledger, writer = context.settings, context.ledger, context.writer
    judged_items, judged = judge(items, ledger, settings.admission, min(settings.max_new, context.num_spare(items)))
    unfit = _remember_dropped(judged.dropped, items, context.step)
    merged = merge_items(
        drafts,
        writer,
        settings.merge,
        guard=lambda item: find_leak(item_texts(item), list_sources(item), context.memories, context.guard),
        deadline=context.deadline,
    )
    gone = list(chain(context.unfit_before, unfit))
    kept, unknown, known = drop_known(judged_items, merged.items, gone, settings.merge.similarity)
    kept, new = merge_into_bank(kept, unknown, writer, ledger, context.deadline)
    added, surplus = _admit_on_probation(new, context)
    everything = list(chain(kept, added))
    excess = over_capacity(everything, ledger, settings.capacity)[: context.num_spare(everything)]
    left_out = {drop.item_id for drop in excess}
    return KindUpdate(
        items=tuple(item for item in everything if item.item_id not in left_out),
        added=tuple(item.item_id for item in added if item.item_id not in left_out),
        admitted=judged.admitted,
        dropped=tuple(chain(judged.dropped, excess)),
        unfit=unfit,
        rejects=tuple(chain(merged.rejects, known, surplus)),
    )


def _admit_on_probation(new: Sequence[Item], context: UpdateContext) -> tuple[list[Item], list[Reject]]:
    """Give new ids to the items with the most sources, as many as an update may add; reject the others."""
    max_new = context.settings.max_new
    ranked = sorted(new, key=lambda item: -len(list_sources(item)))
    surplus = [reject_item(item, f"more than {max_new} new items") for item in ranked[max_new:]]
    return [_put_on_probation(item, context) for item in ranked[:max_new]], surplus


def _put_on_probation(item: Item, context: UpdateContext) -> Item:
    extra = {**item.extra, SOURCES_KEY: list(list_sources(item)), STATUS: PROBATION, SINCE_STEP: context.step}
    return replace(item, extra=extra, **{item.ID_FIELD: context.ids.next()})


def _remember_dropped(
    dropped: Iterable[Dropped], items: Sequence[Skill] | Sequence[Mistake], step: int
) -> list[dict[str, Any]]:
    """Return the records of dropped items for the bank's metadata."""
    by_id = {item.item_id: item for item in items}
    return [
        {"id": drop.item_id, "text": by_id[drop.item_id].text, "reason": drop.reason, "step": step} for drop in dropped
    ]
