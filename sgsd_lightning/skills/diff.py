"""What changed between two banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic

from sgsd_lightning.skills.bank import Item, Mistake, Skill, SkillBank


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldChange:
    """One field of an item, or one key of its ``extra``; None where it was not, or no longer is."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemChange(Generic[Item]):
    """An item that both banks have, but not with the same content."""

    old: Item
    new: Item
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KindDiff(Generic[Item]):
    """What changed among the items of one kind, by their ids."""

    added: tuple[Item, ...] = ()
    """In the new bank's order."""
    removed: tuple[Item, ...] = ()
    """In the old bank's order."""
    changed: tuple[ItemChange[Item], ...] = ()
    """In the new bank's order."""
    is_reordered: bool = False
    """Whether items that both have stand in another order."""

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.removed or self.changed or self.is_reordered)


@dataclass(frozen=True, kw_only=True, slots=True)
class BankDiff:
    """What changed, per kind of item and around them."""

    skills: KindDiff[Skill]
    mistakes: KindDiff[Mistake]
    other_keys: tuple[FieldChange, ...]
    """Of the metadata, as ``metadata.<key>``, and the keys beside the items."""

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.skills or self.mistakes or self.other_keys)


def diff(old: SkillBank, new: SkillBank) -> BankDiff:
    """What changed from one bank to the other; items are the same where their ids are."""
    return BankDiff(
        skills=_kind_diff(old.general_skills, new.general_skills),
        mistakes=_kind_diff(old.common_mistakes, new.common_mistakes),
        other_keys=_changes(_around(old), _around(new)),
    )


def _kind_diff(old: Sequence[Item], new: Sequence[Item]) -> KindDiff[Item]:
    before = {item.item_id: item for item in old}
    after = {item.item_id: item for item in new}
    pairs = [(before[item_id], item) for item_id, item in after.items() if item_id in before]
    changed = [ItemChange(old=was, new=now, fields=_changes(_flat(was), _flat(now))) for was, now in pairs]
    return KindDiff(
        added=tuple(item for item_id, item in after.items() if item_id not in before),
        removed=tuple(item for item_id, item in before.items() if item_id not in after),
        changed=tuple(change for change in changed if change.fields),
        is_reordered=[item_id for item_id in before if item_id in after] != [was.item_id for was, _ in pairs],
    )


def _flat(item: Skill | Mistake) -> dict[str, Any]:
    content = asdict(item)
    extra = content.pop("extra")
    return {**content, **extra}


def _around(bank: SkillBank) -> dict[str, Any]:
    metadata = {f"metadata.{key}": value for key, value in bank.metadata.items()}
    return {"task_specific_skills": dict(bank.task_specific_skills), **metadata, **bank.extra}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    names = dict.fromkeys([*old, *new])
    return tuple(
        FieldChange(field=name, old=old.get(name), new=new.get(name))
        for name in names
        if name not in old or name not in new or old[name] != new[name]
    )
