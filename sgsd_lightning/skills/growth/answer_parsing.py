"""Parses a language model's answer into drafts: tolerant of the JSON, strict about the fields."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.growth.merge_answer import find_missing_text, find_repeated_source, text_fields
from sgsd_lightning.skills.growth.writer import MAX_DRAFTS, Draft, Reject
from sgsd_lightning.texts.damage import restore_backslashes, strip_spaces

LIST_KEYS: dict[type, tuple[str, str]] = {Skill: ("skills", "general_skills"), Mistake: ("mistakes", "common_mistakes")}
MAX_CHARACTERS = 1000
"""The longest text of an item, in characters; longer ones are not general advice."""
_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
# a brace of LaTeX or of a set is followed by other things
_JSON_START = re.compile(r"""[\[{](?=\s*["'\[{\]}/])""")

Kind = type[Skill] | type[Mistake]
Parsed = tuple[tuple[Draft, ...], tuple[Reject, ...]]


def parse_extraction(text: str, kind: Kind, sources: tuple[str, ...]) -> Parsed:
    """Return at most ``MAX_DRAFTS`` drafts that come from ``sources``, and rejects with their reasons."""
    records, fault = _read_records(text, kind)
    if fault:
        return (), (Reject(sources=sources, reason=fault, text=text),)
    drafts: list[Draft] = []
    rejects = []
    for record in records:
        reason = _find_fault(record, kind)
        if reason is None and len(drafts) == MAX_DRAFTS:
            reason = f"more than {MAX_DRAFTS} items from one memory"
        if reason is None:
            drafts.append(Draft(kind=kind, texts=_texts(record, kind), sources=sources))
        else:
            rejects.append(Reject(sources=sources, reason=reason, text=_text(record)))
    return tuple(drafts), tuple(rejects)


def parse_merge(text: str, kind: Kind, shown: Sequence[str]) -> Parsed:
    """Return drafts that each name ids among ``shown``, no id twice, and rejects with their reasons."""
    records, fault = _read_records(text, kind)
    if fault:
        return (), (Reject(sources=tuple(shown), reason=fault, text=text),)
    drafts: list[Draft] = []
    rejects = []
    taken: set[str] = set()
    for record in records:
        reason = _find_fault(record, kind) or _find_wrong_sources(record.get("sources"), shown, taken)
        if reason is None:
            sources = tuple(dict.fromkeys(record["sources"]))
            taken.update(sources)
            drafts.append(Draft(kind=kind, texts=_texts(record, kind), sources=sources))
        else:
            rejects.append(Reject(sources=tuple(shown), reason=reason, text=_text(record)))
    return tuple(drafts), tuple(rejects)


def _read_records(text: str, kind: Kind) -> tuple[list[Any], str | None]:
    """Return the list in an answer, or why there is none."""
    spoken = text.rpartition("</think>")[2]
    if "<think>" in spoken:
        return [], "the answer ends while thinking"
    written = _find_json(spoken)
    if written is None:
        return [], "the answer holds no JSON"
    found = _loads(written)
    records = _find_list(found, kind)
    if records is None:
        return [], f"the JSON has no list {LIST_KEYS[kind][0]!r}"
    if records and not _is_closed(written):
        # a repaired half of a sentence looks like a whole one
        records[-1] = None
    return records, None


def _find_json(spoken: str) -> str | None:
    fenced = _FENCED.findall(spoken)
    candidates = [part for part in fenced if "{" in part or "[" in part]
    within = candidates[-1] if candidates else spoken
    start = _JSON_START.search(within)
    return within[start.start() :] if start else None


def _loads(written: str) -> Any:
    try:
        return json.loads(written)
    except json.JSONDecodeError:
        pass
    return json_repair().loads(written)


def json_repair() -> Any:
    """Import the library that repairs malformed JSON.

    Raises:
        ImportError: naming the extra, if it is not installed.
    """
    try:
        import json_repair as library
    except ImportError:
        raise ImportError(
            "reading a language model's JSON needs json-repair: pip install 'sgsd-lightning[skills]'"
        ) from None
    return library


def _find_list(found: Any, kind: Kind) -> list[Any] | None:
    if isinstance(found, list):
        # text after the JSON may hold brackets, which makes a list of what was found
        objects = [entry for entry in found if isinstance(entry, Mapping)]
        named = [inner for entry in objects if (inner := _find_named_list(entry, kind)) is not None]
        return named[0] if named else list(found)
    if not isinstance(found, Mapping):
        return None
    named_list = _find_named_list(found, kind)
    if named_list is not None:
        return named_list
    return [found] if text_fields(kind)[0] in found else None


def _find_named_list(found: Mapping[str, Any], kind: Kind) -> list[Any] | None:
    for key in LIST_KEYS[kind]:
        if isinstance(found.get(key), list):
            return list(found[key])
        if isinstance(found.get(key), Mapping):
            return [found[key]]
    return None


def _is_closed(written: str) -> bool:
    """Whether all brackets outside of double quotes, and all quotes, are closed."""
    depth = 0
    outside = re.sub(r'"(?:\\.|[^"\\])*"', "", written, flags=re.DOTALL)
    for character in outside:
        depth += (character in "{[") - (character in "}]")
        if depth == 0 and character in "}]":
            return True
    return False


def _find_fault(record: Any, kind: Kind) -> str | None:
    if record is None:
        return "the answer was cut off within this item"
    if not isinstance(record, Mapping):
        return f"a {kind.__name__.lower()} must be a JSON object; got {type(record).__name__}"
    missing = find_missing_text(record, kind)
    if missing is not None:
        return missing
    for name in text_fields(kind):
        if len(record[name]) > MAX_CHARACTERS:
            return f"the field {name!r} has {len(record[name])} characters; at most {MAX_CHARACTERS} are taken"
    return None


def _find_wrong_sources(named: Any, shown: Collection[str], taken: set[str]) -> str | None:
    if not isinstance(named, list) or not named or not all(isinstance(source, str) for source in named):
        return f"the field 'sources' must list ids of the items that were shown; got {named!r:.80}"
    unknown = [source for source in named if source not in shown]
    if unknown:
        return f"the field 'sources' names {unknown[0]!r:.80}, which was not shown"
    return find_repeated_source(named, taken)


def _texts(record: Mapping[str, Any], kind: Kind) -> dict[str, str]:
    """What the item says; models write LaTeX into JSON with single backslashes, of which a reader makes escapes."""
    return {name: restore_backslashes(strip_spaces(record[name])) for name in text_fields(kind)}


def _text(record: Any) -> str:
    return "" if record is None else json.dumps(record, ensure_ascii=False, default=str)
