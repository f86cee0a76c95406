"""Merges a bank of candidates: both kinds, numbered, with a record of the merge in the metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sgsd_lightning.skills.bank import Item, Mistake, Skill, SkillBank, is_dynamic
from sgsd_lightning.skills.growth.merge import MergeResult, MergeSettings, merge_items
from sgsd_lightning.skills.growth.merge_answer import Guard
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.item_ids import MISTAKE_PREFIX, SKILL_PREFIX, ItemIds
from sgsd_lightning.skills.provenance import list_sources, with_sources

METADATA_KEY = "merge"
"""Key of a bank's metadata with the record of its merge; other keys of the candidates' metadata are kept."""


def merge_candidates(
    candidates: SkillBank,
    writer: SkillWriter | None,
    settings: MergeSettings | None = None,
    *,
    source: str = "",
    guard: Guard | None = None,
    deadline: float | None = None,
    on_progress: Callable[[SkillBank], None] | None = None,
    on_reject: Callable[[Reject], None] | None = None,
) -> SkillBank:
    """Merge skills, then mistakes, by `merge_items`.

    Ids such as ``gen_001`` and dynamic ids are kept, so that evidence stays with its item; the other items are numbered
    in order, and their old ids join their sources.

    Args:
        candidates: The items to merge.
        writer: Merges groups; None removes duplicates only.
        settings: None takes the defaults.
        source: The origin of the candidates, such as their file, for the metadata.
        guard: Returns why a merged item is refused, or None.
        deadline: By `time.monotonic`; no group starts after it. None sets none.
        on_progress: Called after each group with a bank of the current items, from which a merge can resume.
        on_reject: Called with each reject after its kind is merged.

    Raises:
        ModelUnavailableError: from the writer; ``on_progress`` was called with everything merged so far.
    """
    settings = settings or MergeSettings()

    def make_bank(skills: Sequence[Skill], mistakes: Sequence[Mistake]) -> SkillBank:
        return replace(
            candidates,
            general_skills=_number_items(skills, SKILL_PREFIX),
            common_mistakes=_number_items(mistakes, MISTAKE_PREFIX),
        )

    def merged(items: Sequence[Item], progress: Callable[[Sequence[Item]], None]) -> MergeResult[Item]:
        result = merge_items(items, writer, settings, guard=guard, deadline=deadline, on_progress=progress)
        for reject in result.rejects:
            tell(reject)
        return result

    report = on_progress or (lambda _: None)
    tell = on_reject or (lambda _: None)
    skills = merged(candidates.general_skills, lambda items: report(make_bank(items, candidates.common_mistakes)))
    mistakes = merged(candidates.common_mistakes, lambda items: report(make_bank(skills.items, items)))
    record: dict[str, Any] = {
        "source": source,
        "similarity": type(settings.similarity).__name__,
        "similarity_threshold": settings.similarity.threshold,
        "writer": type(writer).__name__ if writer else None,
        "general_skills": _record(len(candidates.general_skills), skills),
        "common_mistakes": _record(len(candidates.common_mistakes), mistakes),
    }
    return replace(make_bank(skills.items, mistakes.items), metadata={**candidates.metadata, METADATA_KEY: record})


def _record(num_in: int, result: MergeResult[Item]) -> Mapping[str, Any]:
    return {
        "num_in": num_in,
        "num_out": len(result.items),
        "num_rejects": len(result.rejects),
        "stopped": result.stopped,
        "layers": [asdict(layer) for layer in result.layers],
    }


def _number_items(items: Sequence[Item], prefix: str) -> tuple[Item, ...]:
    """Number the items; each has its former id or its sources in its ``extra``."""
    ids = ItemIds(prefix, [item.item_id for item in items])
    return tuple(item if _has_bank_id(item, prefix) else _rename(item, ids.next()) for item in items)


def _has_bank_id(item: Skill | Mistake, prefix: str) -> bool:
    return is_dynamic(item.item_id) or re.fullmatch(rf"{prefix}[0-9]{{3,}}", item.item_id) is not None


def _rename(item: Item, new_id: str) -> Item:
    sources = list_sources(item)
    changes: dict[str, Any] = {item.ID_FIELD: new_id}
    return with_sources(replace(item, **changes), sources)
