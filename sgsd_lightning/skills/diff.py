"""The difference between two banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic

from sgsd_lightning.skills.bank import Item, Mistake, Skill, SkillBank


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldChange:
    """One changed field of an item, or key of its ``extra``; None on the side that lacks it."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemChange(Generic[Item]):
    """An item that is in both banks with different content."""

    old: Item
    new: Item
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KindDiff(Generic[Item]):
    """The changes among the items of one kind, matched by id."""

    added: tuple[Item, ...] = ()
    """In the new bank's order."""
    removed: tuple[Item, ...] = ()
    """In the old bank's order."""
    changed: tuple[ItemChange[Item], ...] = ()
    """In the new bank's order."""
    is_reordered: bool = False
    """Whether the items in both banks have another order."""

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.removed or self.changed or self.is_reordered)


@dataclass(frozen=True, kw_only=True, slots=True)
class BankDiff:
    """The changes per kind of item, and of the other keys."""

    skills: KindDiff[Skill]
    mistakes: KindDiff[Mistake]
    other_keys: tuple[FieldChange, ...]
    """Top-level keys besides the items; those of the metadata as ``metadata.<key>``."""

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.skills or self.mistakes or self.other_keys)


def diff(old: SkillBank, new: SkillBank) -> BankDiff:
    """Compare two banks; items are matched by id."""
    return BankDiff(
        skills=_kind_diff(old.general_skills, new.general_skills),
        mistakes=_kind_diff(old.common_mistakes, new.common_mistakes),
        other_keys=_find_changes(_outer_keys(old), _outer_keys(new)),
    )


def _kind_diff(old: Sequence[Item], new: Sequence[Item]) -> KindDiff[Item]:
    before = {item.item_id: item for item in old}
    after = {item.item_id: item for item in new}
    pairs = [(before[item_id], item) for item_id, item in after.items() if item_id in before]
    changed = [ItemChange(old=was, new=now, fields=_find_changes(_flatten(was), _flatten(now))) for was, now in pairs]
    return KindDiff(
        added=tuple(item for item_id, item in after.items() if item_id not in before),
        removed=tuple(item for item_id, item in before.items() if item_id not in after),
        changed=tuple(change for change in changed if change.fields),
        is_reordered=[item_id for item_id in before if item_id in after] != [was.item_id for was, _ in pairs],
    )


def _flatten(item: Skill | Mistake) -> dict[str, Any]:
    content = asdict(item)
    extra = content.pop("extra")
    return {**content, **extra}


def _outer_keys(bank: SkillBank) -> dict[str, Any]:
    metadata = {f"metadata.{key}": value for key, value in bank.metadata.items()}
    return {"task_specific_skills": dict(bank.task_specific_skills), **metadata, **bank.extra}


def _find_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    names = dict.fromkeys([*old, *new])
    return tuple(
        FieldChange(field=name, old=old.get(name), new=new.get(name))
        for name in names
        if name not in old or name not in new or old[name] != new[name]
    )
