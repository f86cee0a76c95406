"""Finds all problems of a bank file, not only the first that stops it from loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sgsd_lightning.files import locate
from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.control_spellings import find_control_spellings
from sgsd_lightning.skills.provenance import SOURCES_KEY
from sgsd_lightning.skills.similarity import LexicalSimilarity, TextSimilarity
from sgsd_lightning.texts.damage import control_characters, lost_backslashes, unreadable_character
from sgsd_lightning.texts.strict_json import MalformedTextError, read_json, shorten

Severity = Literal["error", "warning", "note"]
MAX_TEXT_CHARACTERS = 1000
"""Longer texts are a warning. Three times the longest text of the published banks."""
CONTEXT = 15
"""Characters shown on either side of what is damaged."""
_BANK_KEYS = ("general_skills", "task_specific_skills", "common_mistakes", "metadata")
_KINDS: tuple[tuple[str, type[Skill] | type[Mistake]], ...] = (("general_skills", Skill), ("common_mistakes", Mistake))
_OWN_KEYS = frozenset({SOURCES_KEY, "status", "since_step"})
"""Keys that this project adds to the authors' schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BankProblem:
    """One problem of a bank file, or a remark on it."""

    severity: Severity
    """An error keeps the bank from loading."""
    place: str
    """``general_skills[3]``, or a key of the bank; "" for the file as a whole."""
    item_id: str | None
    field: str | None
    message: str

    def __str__(self) -> str:
        """One line: severity, place, item, field, message."""
        name = f" ({self.item_id})" if self.item_id is not None else ""
        where = " ".join(part for part in (f"{self.place}{name}", self.field) if part)
        return f"{self.severity}: {where + ': ' if where else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class _Entry:
    place: str
    kind: type[Skill] | type[Mistake]
    content: Mapping[str, Any]

    @property
    def item_id(self) -> str | None:
        found = self.content.get(self.kind.ID_FIELD)
        return found if isinstance(found, str) else None

    @property
    def field_names(self) -> list[str]:
        return [entry.name for entry in fields(self.kind) if entry.name != "extra"]

    def problem(self, severity: Severity, field: str | None, message: str) -> BankProblem:
        return BankProblem(severity=severity, place=self.place, item_id=self.item_id, field=field, message=message)


def find_problems(path: str | Path, similarity: TextSimilarity | None = None) -> list[BankProblem]:
    """Return all problems, errors first, then in the order of the file; an empty list for a good bank.

    Args:
        path: The bank file.
        similarity: Decides what near duplicates are; None compares words.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    try:
        content = read_json(locate(path, "skill bank"))
    except MalformedTextError as error:
        return [_bank_problem("error", "", error.what)]
    if not isinstance(content, dict):
        return [_bank_problem("error", "", f"a skill bank must be a JSON object; got {type(content).__name__}")]
    entries, found = _read_entries(content)
    found += [problem for entry in entries for problem in _check_entry(entry)]
    found += [*_find_repeated_ids(entries), *_find_near_duplicates(entries, similarity or LexicalSimilarity())]
    severities = ("error", "warning", "note")
    return sorted(found, key=lambda problem: severities.index(problem.severity))


def _bank_problem(severity: Severity, key: str, message: str) -> BankProblem:
    return BankProblem(severity=severity, place=key, item_id=None, field=None, message=message)


def _read_entries(content: Mapping[str, Any]) -> tuple[list[_Entry], list[BankProblem]]:
    """Return the items that are objects, and the problems of everything else."""
    entries: list[_Entry] = []
    problems: list[BankProblem] = []
    for key, kind in _KINDS:
        items = content.get(key, [])
        if not isinstance(items, list):
            problems.append(_bank_problem("error", key, f"must be a list; got {type(items).__name__}"))
            continue
        if not items:
            problems.append(_bank_problem("warning", key, f"holds no {kind.__name__.lower()}, so no pair can be made"))
        for index, item in enumerate(items):
            if isinstance(item, dict):
                entries.append(_Entry(f"{key}[{index}]", kind, item))
            else:
                problems.append(
                    _bank_problem("error", f"{key}[{index}]", f"must be an object; got {type(item).__name__}")
                )
    for key in ("task_specific_skills", "metadata"):
        if not isinstance(content.get(key, {}), dict):
            problems.append(_bank_problem("error", key, f"must be an object; got {type(content[key]).__name__}"))
    problems += [
        _bank_problem("note", key, "an unknown key, which is kept") for key in content if key not in _BANK_KEYS
    ]
    return entries, problems


def _check_entry(entry: _Entry) -> Iterator[BankProblem]:
    for name in entry.field_names:
        value = entry.content.get(name)
        if name not in entry.content:
            yield entry.problem("error", name, f"is missing; a {entry.kind.__name__.lower()} must have it")
        elif not isinstance(value, str) or not value.strip():
            yield entry.problem("error", name, f"must be a non-empty text; got {shorten(value)}")
        else:
            yield from _check_text(entry, name, value)
    for name in entry.content:
        if name not in entry.field_names and name not in _OWN_KEYS:
            yield entry.problem("note", name, "an unknown key, which is kept")


def _check_text(entry: _Entry, name: str, text: str) -> Iterator[BankProblem]:
    if len(text) > MAX_TEXT_CHARACTERS:
        message = f"has {len(text)} characters, more than {MAX_TEXT_CHARACTERS}; every prompt that shows it grows"
        yield entry.problem("warning", name, message)
    found = find_control_spellings(text)
    if found:
        message = f"holds what models know as control tokens ({', '.join(found)}); prompts show them as plain text"
        yield entry.problem("warning", name, message)
    unreadable = unreadable_character(text)
    if unreadable is not None:
        yield entry.problem("error", name, f"holds {unreadable}; remove it")
    lost = lost_backslashes(text)
    for damage in lost:
        around = shorten(text[max(0, damage.start - CONTEXT) : damage.start + len(damage.found) + CONTEXT])
        message = f"LaTeX lost its backslash: {damage.found!r} in {around}; write {damage.meant}"
        yield entry.problem("warning", name, message)
    of_latex = {damage.found[0] for damage in lost}
    for character in control_characters(text):
        if character not in of_latex and unreadable_character(character) is None:
            yield entry.problem("warning", name, f"holds the control character {character!r}; remove it")


def _find_repeated_ids(entries: Sequence[_Entry]) -> Iterator[BankProblem]:
    first: dict[str, _Entry] = {}
    for entry in entries:
        if entry.item_id is None:
            continue
        if entry.item_id in first:
            message = f"the id {entry.item_id!r} stands at {first[entry.item_id].place} already; ids must be unique"
            yield entry.problem("error", entry.kind.ID_FIELD, message)
        first.setdefault(entry.item_id, entry)


def _find_near_duplicates(entries: Sequence[_Entry], similarity: TextSimilarity) -> Iterator[BankProblem]:
    """Yield each item that resembles an earlier one of its kind, with the most similar one."""
    for _, kind in _KINDS:
        sound = [
            entry
            for entry in entries
            if entry.kind is kind and not any(problem.severity == "error" for problem in _check_entry(entry))
        ]
        neighbours = similarity.neighbours([_text(entry) for entry in sound])
        for place, (entry, near) in enumerate(zip(sound, neighbours, strict=True)):
            earlier = {other: likeness for other, likeness in near.items() if other < place}
            if earlier:
                closest = max(earlier, key=lambda other: (earlier[other], -other))
                message = f"says much the same as {sound[closest].item_id} (similarity {earlier[closest]:.2f})"
                yield entry.problem("warning", None, message)


def _text(entry: _Entry) -> str:
    texts = {name: entry.content[name] for name in entry.field_names}
    return entry.kind(**texts).text
