"""A bank from candidates: both kinds merged, numbered, with a record of how."""

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
from sgsd_lightning.skills.provenance import sources_of, with_sources

METADATA_KEY = "merge"
"""Where a bank's metadata tell of its merge; what else stands in the candidates' metadata is kept."""


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
    """Skills merged among themselves, then mistakes, as `merge_items` does.

    Items whose ids are ``gen_001`` and the like, or dynamic, keep them, so that evidence kept by id stays with them;
    the others are numbered in order, and their old ids stand among their sources.

    Args:
        candidates: What to merge.
        writer: Who merges; None removes duplicates only.
        settings: None takes the defaults.
        source: Where the candidates come from, such as the file, for the metadata.
        guard: Says why a merged item must not be, None where it may.
        deadline: By `time.monotonic`: no group is started after it. None never ends.
        on_progress: Called after each group with a bank that holds all that was reached and can be merged further.
        on_reject: Called with each reject once its kind is done.

    Raises:
        ModelUnavailableError: from the writer; ``on_progress`` has had all that was reached.
    """
    settings = settings or MergeSettings()

    def make_bank(skills: Sequence[Skill], mistakes: Sequence[Mistake]) -> SkillBank:
        return replace(
            candidates,
            general_skills=_numbered(skills, SKILL_PREFIX),
            common_mistakes=_numbered(mistakes, MISTAKE_PREFIX),
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


def _numbered(items: Sequence[Item], prefix: str) -> tuple[Item, ...]:
    """The items with ids of a bank, each with its former id or its sources on record."""
    ids = ItemIds(prefix, [item.item_id for item in items])
    return tuple(item if _is_of_a_bank(item, prefix) else _renamed(item, ids.next()) for item in items)


def _is_of_a_bank(item: Skill | Mistake, prefix: str) -> bool:
    return is_dynamic(item.item_id) or re.fullmatch(rf"{prefix}[0-9]{{3,}}", item.item_id) is not None


def _renamed(item: Item, new_id: str) -> Item:
    sources = sources_of(item)
    changes: dict[str, Any] = {item.ID_FIELD: new_id}
    return with_sources(replace(item, **changes), sources)
