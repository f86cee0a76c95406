"""Merges items: duplicates are removed first, then a writer merges groups of similar items, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal

from sgsd_lightning.skills.bank import Item, Mistake, Skill
from sgsd_lightning.skills.growth.duplicates import without_duplicates
from sgsd_lightning.skills.growth.groups import group_similar
from sgsd_lightning.skills.growth.merge_answer import Guard, apply_answer
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.similarity import LexicalSimilarity, TextSimilarity
from sgsd_lightning.types.arguments import require_at_least

UNNUMBERED_PREFIX = "merged_"
"""Prefix of the ids of merged items until the caller numbers them."""
Stopped = Literal["no writer", "one group", "no progress", "deadline"]


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """How items are merged by a writer."""

    group_size: int = 32
    """The most items per call of the writer."""
    patience: int = 2
    """The merge ends after this many layers in a row that removed no item; each layer groups anew."""
    compare_by: TextSimilarity | None = None
    """Finds duplicates and groups similar items. None compares words."""

    def __post_init__(self) -> None:
        require_at_least(2, "merge.group_size", self.group_size)
        require_at_least(1, "merge.patience", self.patience)

    @property
    def similarity(self) -> TextSimilarity:
        """``compare_by`` or its default (no field default: a saved configuration cannot hold an object)."""
        return self.compare_by or LexicalSimilarity()


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeLayer:
    """The statistics of one pass over all items."""

    num_in: int
    num_groups: int
    """Groups that the writer was asked about; 0 where only duplicates were removed."""
    num_out: int
    num_duplicates: int
    """Removed items that were duplicates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeResult(Generic[Item]):
    """The remaining items, the layers that led to them, and the rejects."""

    items: tuple[Item, ...]
    stopped: Stopped
    layers: tuple[MergeLayer, ...] = ()
    rejects: tuple[Reject, ...] = ()


def merge_items(
    items: Sequence[Item],
    writer: SkillWriter | None,
    settings: MergeSettings | None = None,
    *,
    ids: ItemIds | None = None,
    guard: Guard | None = None,
    deadline: float | None = None,
    on_progress: Callable[[Sequence[Item]], None] | None = None,
) -> MergeResult[Item]:
    """Merge items of one kind; each remaining item has the sources of all that were merged into it.

    A bad answer loses nothing: items that no usable draft names are kept, and no answer adds items. The last argument
    of ``on_progress`` is a valid input from which an interrupted merge resumes.

    Args:
        items: The items, with unique ids.
        writer: Merges groups; None removes duplicates only.
        settings: None takes the defaults.
        ids: Generates the ids of merged items; must know the ids of ``items``. None calls them ``merged_001`` and so
            on, for callers that number the result.
        guard: Returns why a merged item is refused, or None. A refused draft is rejected and its items are kept.
        deadline: By `time.monotonic`; no group starts after it, and the writer receives it too. None sets none.
        on_progress: Called after each group with all current items.

    Raises:
        ValueError: if two items have the same id.
        ModelUnavailableError: from the writer; ``on_progress`` was called with everything merged so far.
    """
    _refuse_repeated_ids(items)
    work = _Work(
        items=list(items),
        ids=ids or ItemIds(UNNUMBERED_PREFIX, [item.item_id for item in items]),
        settings=settings or MergeSettings(),
        guard=guard,
        deadline=deadline,
        on_progress=on_progress or (lambda _: None),
    )
    work.remove_duplicates()
    stopped: Stopped = "no writer" if writer is None else work.merge_layers(writer)
    return MergeResult(items=tuple(work.items), stopped=stopped, layers=tuple(work.layers), rejects=tuple(work.rejects))


@dataclass(kw_only=True, slots=True)
class _Work(Generic[Item]):
    """A merge in progress; ``items`` is its result so far."""

    items: list[Item]
    ids: ItemIds
    settings: MergeSettings
    guard: Guard | None
    deadline: float | None
    on_progress: Callable[[Sequence[Item]], None]
    layers: list[MergeLayer] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def remove_duplicates(self) -> None:
        num_in = len(self.items)
        self.items = without_duplicates(self.items, self.settings.similarity)
        num_out = len(self.items)
        self.layers.append(MergeLayer(num_in=num_in, num_groups=0, num_out=num_out, num_duplicates=num_in - num_out))

    def merge_layers(self, writer: SkillWriter) -> Stopped:
        num_idle = 0
        while num_idle < self.settings.patience:
            if len(self.items) < 2:
                return "one group"
            turn = len(self.layers) - 1
            groups = group_similar(self.items, self.settings.group_size, self.settings.similarity, turn)
            if not self._merge_layer(writer, groups):
                return "deadline"
            if len(groups) == 1:
                return "one group"
            num_idle = num_idle + 1 if self.layers[-1].num_out == self.layers[-1].num_in else 0
        return "no progress"

    def _merge_layer(self, writer: SkillWriter, groups: Sequence[Sequence[Item]]) -> bool:
        """Merge the groups; return whether all were done before the deadline."""
        num_in = len(self.items)
        num_done = 0
        for group in groups:
            if self.deadline is not None and time.monotonic() >= self.deadline:
                break
            self._merge_group(writer, group)
            self.on_progress(tuple(self.items))
            num_done += 1
        num_merged = len(self.items)
        self.items = without_duplicates(self.items, self.settings.similarity)
        num_out = len(self.items)
        self.layers.append(
            MergeLayer(num_in=num_in, num_groups=num_done, num_out=num_out, num_duplicates=num_merged - num_out)
        )
        return num_done == len(groups)

    def _merge_group(self, writer: SkillWriter, group: Sequence[Item]) -> None:
        if len(group) < 2:
            return
        written = writer.merge(group, self.deadline)
        replacements, rejects = apply_answer(group, written, self.ids, self.guard)
        self.rejects += rejects
        self.items = [replacement for item in self.items for replacement in replacements.get(item.item_id, [item])]


def _refuse_repeated_ids(items: Sequence[Skill] | Sequence[Mistake]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.item_id in seen:
            raise ValueError(f"the id {item.item_id!r} stands twice among the items to merge; ids must be unique")
        seen.add(item.item_id)
