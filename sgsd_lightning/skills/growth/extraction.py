"""Extracts candidates from memories, with a progress file: a memory is asked about once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from sgsd_lightning.files import keep_whole_lines
from sgsd_lightning.language_models.base import ModelUnavailableError
from sgsd_lightning.skills.bank import Item, Mistake, Skill, SkillBank
from sgsd_lightning.skills.growth.drafting import refuse_leaks, to_items
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Draft, Reject, SkillWriter, Written
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.texts.strict_json import read_json_lines

KINDS: dict[str, type[Skill] | type[Mistake]] = {"skill": Skill, "mistake": Mistake}
CANDIDATE_PREFIX: dict[type, str] = {Skill: "gen_cand_", Mistake: "err_cand_"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """The candidates from all memories, and the rejects."""

    candidates: SkillBank
    rejects: tuple[Reject, ...]

    @property
    def reject_counts(self) -> Counter[str]:
        """The number of rejects per reason."""
        return Counter(reject.reason for reject in self.rejects)


def extract_candidates(
    memories: Sequence[Memory],
    writer: SkillWriter,
    guard: LeakGuard,
    progress: Path,
    on_memory: Callable[[], None] = lambda: None,
) -> Extraction:
    """Ask the writer about every memory that ``progress`` lacks, and make candidates from all answers.

    Every answer is appended to ``progress`` as it arrives; failed calls are not, so that the next run repeats them.
    Candidates are in the order of the memories, whatever the order of the answers.

    Raises:
        ValueError: if ``progress`` belongs to other memories, or is no progress file.
        ModelUnavailableError: when the model is unavailable, or every call failed, with the most frequent reason.
    """
    by_id = {memory.memory_id: memory for memory in memories}
    done = _load_progress(progress, by_id)
    for _ in done:
        on_memory()
    failed: dict[str, Written] = {}
    progress.parent.mkdir(parents=True, exist_ok=True)
    with progress.open("a", encoding="utf-8") as file:
        for written in writer.extract([memory for memory in memories if memory.memory_id not in done]):
            (memory_id,) = written.sources
            if _is_failed_call(written):
                failed[memory_id] = written
            else:
                done[memory_id] = written
                _append(file, written)
            on_memory()
    if failed and not done:
        reasons = Counter(reject.reason for written in failed.values() for reject in written.rejects)
        reason, num = reasons.most_common(1)[0]
        raise ModelUnavailableError(f"not one of {len(failed)} memories was answered; {num} times because {reason}")
    return _collect([{**failed, **done}[memory.memory_id] for memory in memories], by_id, guard)


def _is_failed_call(written: Written) -> bool:
    """Whether the call failed, rather than gave an unusable answer."""
    return not written.drafts and bool(written.rejects) and not any(reject.text for reject in written.rejects)


def _collect(parts: Sequence[Written], memories: Mapping[str, Memory], guard: LeakGuard) -> Extraction:
    rejects = [reject for part in parts for reject in part.rejects]
    drafts, leaking = refuse_leaks([draft for part in parts for draft in part.drafts], memories, guard)
    candidates = SkillBank(general_skills=_number(Skill, drafts), common_mistakes=_number(Mistake, drafts))
    return Extraction(candidates=candidates, rejects=(*rejects, *leaking))


def _number(kind: type[Item], drafts: Sequence[Draft]) -> tuple[Item, ...]:
    """Make items of this kind with ids of candidates."""
    ids = ItemIds(CANDIDATE_PREFIX[kind], num_digits=6)
    return to_items(kind, ((ids.next(), draft) for draft in drafts if draft.kind is kind))


def _append(file: TextIO, written: Written) -> None:
    record = {
        "memory_id": written.sources[0],
        "drafts": [
            {"kind": draft.kind.__name__.lower(), "texts": dict(draft.texts), "extra": dict(draft.extra or {})}
            for draft in written.drafts
        ],
        "rejects": [asdict(reject) for reject in written.rejects],
    }
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def _load_progress(path: Path, memories: Mapping[str, Memory]) -> dict[str, Written]:
    if not path.exists():
        return {}
    keep_whole_lines(path)
    found = {}
    for number, record in read_json_lines(path):
        try:
            written = _parse_written(record)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a line of progress; remove the file to begin anew") from error
        if written.sources[0] not in memories:
            raise ValueError(
                f"{path}:{number} is about the memory {written.sources[0]!r}, which is not among those given; "
                "remove the file to begin anew, or take the memories it was begun with"
            )
        found[written.sources[0]] = written
    return found


def _parse_written(record: Any) -> Written:
    sources = (record["memory_id"],)
    return Written(
        sources=sources,
        drafts=tuple(
            Draft(kind=KINDS[draft["kind"]], texts=draft["texts"], extra=draft["extra"], sources=sources)
            for draft in record["drafts"]
        ),
        rejects=tuple(
            Reject(sources=tuple(reject["sources"]), reason=reject["reason"], text=reject["text"])
            for reject in record["rejects"]
        ),
    )
