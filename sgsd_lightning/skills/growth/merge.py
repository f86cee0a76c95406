"""Merging: many candidates become a bank. Duplicates go first, then a writer merges groups, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal

from sgsd_lightning.skills.bank import Item, Mistake, Skill
from sgsd_lightning.skills.growth.duplicates import without_duplicates
from sgsd_lightning.skills.growth.groups import groups_of_similar
from sgsd_lightning.skills.growth.merge_answer import Guard, applied_answer
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.similarity import LexicalSimilarity, TextSimilarity
from sgsd_lightning.types.arguments import require_at_least

UNNUMBERED_PREFIX = "merged_"
"""What the ids of merged items begin with until whoever asked for the merge numbers them."""
Stopped = Literal["no writer", "one group", "no progress", "deadline"]


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """How items are merged by a writer."""

    group_size: int = 32
    """The most items that a writer is shown at once."""
    patience: int = 2
    """Layers in a row that may leave as many items as they found; their groups differ."""
    compare_by: TextSimilarity | None = None
    """What counts as a duplicate, and which items a writer sees together. None compares words."""

    def __post_init__(self) -> None:
        require_at_least(2, "merge.group_size", self.group_size)
        require_at_least(1, "merge.patience", self.patience)

    @property
    def similarity(self) -> TextSimilarity:
        """``compare_by``, or its default, which a saved configuration could not name as an object."""
        return self.compare_by or LexicalSimilarity()


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeLayer:
    """What one pass over all items did."""

    num_in: int
    num_groups: int
    """Groups that a writer was shown; 0 where only duplicates were removed."""
    num_out: int
    num_duplicates: int
    """Of the items that are gone, those that similarity alone removed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeResult(Generic[Item]):
    """What is left, and how that came to be."""

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
    """Fewer items of one kind that say the same, every one with the sources of all that it stands for.

    Nothing is lost to a bad answer: items that no usable draft names are kept as they are, and no answer makes them
    more. Whatever ``on_progress`` was given last is a valid input, from which an interrupted merge can go on.

    Args:
        items: What to merge; their ids must be unique.
        writer: Who merges; None removes duplicates only.
        settings: None takes the defaults.
        ids: Where the ids of merged items come from; it must know the ids of ``items``. None calls them ``merged_001``
            and so on, for callers that number what is left.
        guard: Says why a merged item must not be, None where it may: such a draft is rejected and its items kept.
        deadline: By `time.monotonic`: no group is started after it, and the writer is told. None never ends.
        on_progress: Called after each group with all items as they are then.

    Raises:
        ValueError: if two items have the same id.
        ModelUnavailableError: from the writer; ``on_progress`` has had all that was reached.
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
    """A merge under way: ``items`` is at any time what it would return if it ended there."""

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
            groups = groups_of_similar(self.items, self.settings.group_size, self.settings.similarity, turn)
            if not self._merge_layer(writer, groups):
                return "deadline"
            if len(groups) == 1:
                return "one group"
            num_idle = num_idle + 1 if self.layers[-1].num_out == self.layers[-1].num_in else 0
        return "no progress"

    def _merge_layer(self, writer: SkillWriter, groups: Sequence[Sequence[Item]]) -> bool:
        """Whether all groups had their turn before the deadline."""
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
        replacements, rejects = applied_answer(group, written, self.ids, self.guard)
        self.rejects += rejects
        self.items = [replacement for item in self.items for replacement in replacements.get(item.item_id, [item])]


def _refuse_repeated_ids(items: Sequence[Skill] | Sequence[Mistake]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.item_id in seen:
            raise ValueError(f"the id {item.item_id!r} stands twice among the items to merge; ids must be unique")
        seen.add(item.item_id)
