"""The skill bank, in the authors' JSON schema, so that their banks load as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sgsd_lightning.files import atomically, locate
from sgsd_lightning.texts.damage import unreadable_character
from sgsd_lightning.texts.strict_json import parse_json, read_text, shorten

DYNAMIC_PREFIX = "dyn_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Skill:
    """A strategy that worked."""

    ID_FIELD: ClassVar[str] = "skill_id"
    skill_id: str
    title: str
    principle: str
    when_to_apply: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys beyond the schema; kept in a round trip."""

    @property
    def item_id(self) -> str:
        """The id, whatever kind of item."""
        return self.skill_id

    @property
    def headline(self) -> str:
        """What tables show of it."""
        return self.title

    @property
    def text(self) -> str:
        """What retrieval compares with a problem."""
        return f"{self.title}. {self.principle} {self.when_to_apply}"

    @property
    def digest(self) -> str:
        """Of what the item says, whatever its id and its extra keys."""
        return _digest(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A common way to fail."""

    ID_FIELD: ClassVar[str] = "mistake_id"
    mistake_id: str
    description: str
    why_it_happens: str
    how_to_avoid: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys beyond the schema; kept in a round trip."""

    @property
    def item_id(self) -> str:
        """The id, whatever kind of item."""
        return self.mistake_id

    @property
    def headline(self) -> str:
        """What tables show of it."""
        return self.description

    @property
    def text(self) -> str:
        """What retrieval compares with a problem."""
        return f"{self.description} {self.why_it_happens} {self.how_to_avoid}"

    @property
    def digest(self) -> str:
        """Of what the item says, whatever its id and its extra keys."""
        return _digest(self)


Item = TypeVar("Item", Skill, Mistake)


@dataclass(frozen=True, kw_only=True, slots=True)
class SkillBank:
    """Skills and mistakes, each in order."""

    general_skills: tuple[Skill, ...]
    common_mistakes: tuple[Mistake, ...]
    task_specific_skills: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Top-level keys beyond the schema; kept in a round trip."""

    @property
    def items(self) -> tuple[Skill | Mistake, ...]:
        """Skills, then mistakes."""
        return (*self.general_skills, *self.common_mistakes)

    @classmethod
    def load(cls, path: str | Path) -> SkillBank:
        """Read and check a bank; ``package://some.package/file.json`` names one that an installed package ships.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: naming the file, the item and the field of the first thing that is wrong.
        """
        path = locate(path, "skill bank")
        bank = cls.from_json(read_text(path), where=str(path))
        _refuse_unreadable(bank, str(path))
        return bank

    @classmethod
    def from_json(cls, text: str, where: str = "skill bank") -> SkillBank:
        """Read and check a bank from its JSON; ``where`` names it in errors."""
        content = parse_json(text, where)
        if not isinstance(content, dict):
            raise ValueError(f"{where}: a skill bank must be a JSON object; got {type(content).__name__}")
        bank = cls(
            general_skills=_read_items(Skill, content, "general_skills", where),
            common_mistakes=_read_items(Mistake, content, "common_mistakes", where),
            task_specific_skills=_read_object(content, "task_specific_skills", where),
            metadata=_read_object(content, "metadata", where),
            extra={key: value for key, value in content.items() if key not in _BANK_KEYS},
        )
        _refuse_repeated_ids(bank, where)
        return bank

    def to_json(self) -> str:
        """Return the bank as indented JSON, ending in a newline."""
        content = {
            "general_skills": [_write_item(skill) for skill in self.general_skills],
            "task_specific_skills": dict(self.task_specific_skills),
            "common_mistakes": [_write_item(mistake) for mistake in self.common_mistakes],
            "metadata": dict(self.metadata),
            **self.extra,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write atomically: a reader sees the old bank or the new one, also after a crash."""
        with atomically(Path(path)) as file:
            file.write(self.to_json())

    @property
    def content_hash(self) -> str:
        """A digest of the whole content."""
        return hashlib.sha256(self.to_json().encode("utf-8")).hexdigest()


_BANK_KEYS = {"general_skills", "common_mistakes", "task_specific_skills", "metadata"}


def is_dynamic(item_id: str) -> bool:
    """Whether an item was written while training; static items are never touched."""
    return item_id.startswith(DYNAMIC_PREFIX)


def _text_fields(kind: type[Skill] | type[Mistake]) -> list[str]:
    return [entry.name for entry in fields(kind) if entry.name != "extra"]


def _digest(item: Skill | Mistake) -> str:
    said = [getattr(item, name) for name in _text_fields(type(item)) if name != item.ID_FIELD]
    return hashlib.sha256(json.dumps([item.ID_FIELD, *said]).encode("ascii")).hexdigest()[:16]


def _read_items(kind: type[Item], content: Mapping[str, Any], key: str, where: str) -> tuple[Item, ...]:
    items = content.get(key, [])
    if not isinstance(items, list):
        raise ValueError(f"{where}: {key} must be a list; got {type(items).__name__}")
    return tuple(_read_item(kind, item, f"{where}: {key}[{index}]") for index, item in enumerate(items))


def _read_item(kind: type[Item], item: Any, where: str) -> Item:
    if not isinstance(item, dict):
        raise ValueError(f"{where} must be an object; got {type(item).__name__}")
    names = _text_fields(kind)
    if kind.ID_FIELD in item:
        where = f"{where} ({item[kind.ID_FIELD]})"
    for name in names:
        if name not in item:
            raise ValueError(
                f"{where}: the field {name!r} is missing; a {kind.__name__.lower()} has {', '.join(names)}"
            )
        if not isinstance(item[name], str) or not item[name].strip():
            raise ValueError(f"{where}: the field {name!r} must be a non-empty text; got {shorten(item[name])}")
    extra = {key: value for key, value in item.items() if key not in names}
    return kind(**{name: item[name] for name in names}, extra=extra)


def _read_object(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {key} must be an object; got {type(value).__name__}")
    return value


def _write_item(item: Skill | Mistake) -> dict[str, Any]:
    return {**{name: getattr(item, name) for name in _text_fields(type(item))}, **item.extra}


def _refuse_unreadable(bank: SkillBank, where: str) -> None:
    for item in bank.items:
        for name in _text_fields(type(item)):
            text = getattr(item, name)
            found = unreadable_character(text)
            if found is not None:
                place = f"{where}: {shorten(item.item_id)}, field {name!r}"
                raise ValueError(f"{place}: holds {found} ({shorten(text)}); sgsd skills validate lists all of them")


def _refuse_repeated_ids(bank: SkillBank, where: str) -> None:
    seen: set[str] = set()
    for item in bank.items:
        if item.item_id in seen:
            raise ValueError(f"{where}: the id {item.item_id!r} occurs twice; ids must be unique in a bank")
        seen.add(item.item_id)
