"""One update of a bank while training: write from experience, judge items on probation, merge, admit new items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgsd_lightning.skills.admission import UNFIT, Dropped
from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.skills.evidence import EvidenceLedger
from sgsd_lightning.skills.growth.drafting import draft_candidates
from sgsd_lightning.skills.growth.kind_update import MaintenanceSettings, UpdateContext, update_kind
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter
from sgsd_lightning.skills.item_ids import DYNAMIC_PREFIX, ItemIds
from sgsd_lightning.skills.leaks.guard import LeakGuard

LAST_ID = "last_dynamic_id"
"""The key of a bank's metadata for the highest id number used, which may not return."""
NUM_UNFIT_KEPT = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class BankUpdate:
    """The new bank, and the changes that led to it."""

    bank: SkillBank
    added: tuple[str, ...]
    """Ids of items that are new and on probation."""
    admitted: tuple[str, ...]
    """Ids of items whose probation is over."""
    dropped: tuple[Dropped, ...]
    rejects: tuple[Reject, ...]
    """Answers and drafts that could not be used."""
    num_drafts: int
    """Drafts of the writer."""
    num_leaks: int
    """Drafts that revealed an answer or an evaluation problem."""


def maintain(
    bank: SkillBank,
    ledger: EvidenceLedger,
    memories: Sequence[Memory],
    writer: SkillWriter,
    guard: LeakGuard,
    settings: MaintenanceSettings,
    step: int,
    deadline: float | None = None,
    min_items: int = 1,
) -> BankUpdate:
    """Make the next bank. Static items never change, and the result does not depend on the number of processes.

    Args:
        bank: The current bank.
        ledger: The evidence on its items.
        memories: Judged rollouts since the last update.
        writer: Drafts items from them.
        guard: Refuses items that reveal an answer or an evaluation problem.
        settings: How much may change.
        step: The optimizer step, for the record.
        deadline: Of the writer, by `time.monotonic`; None sets none.
        min_items: How many items of each kind the bank must keep for retrieval.

    Raises:
        ModelUnavailableError: when the writer's model is unavailable.
    """
    ids = ItemIds(
        DYNAMIC_PREFIX,
        [item.item_id for item in bank.items],
        int(bank.metadata.get(LAST_ID, 0)),
    )
    candidates = draft_candidates(choose_memories(memories, settings.max_memories), writer, guard, deadline)
    unfit_before = bank.metadata.get(UNFIT, [])
    context = UpdateContext(
        memories=candidates.memories,
        ledger=ledger,
        writer=writer,
        guard=guard,
        settings=settings,
        step=step,
        ids=ids,
        unfit_before=unfit_before,
        deadline=deadline,
        min_items=min_items,
    )
    skills = update_kind(bank.general_skills, candidates.skills, context)
    mistakes = update_kind(bank.common_mistakes, candidates.mistakes, context)
    unfit = [*unfit_before, *skills.unfit, *mistakes.unfit][-NUM_UNFIT_KEPT:]
    return BankUpdate(
        bank=replace(
            bank,
            general_skills=skills.items,
            common_mistakes=mistakes.items,
            metadata={**bank.metadata, LAST_ID: ids.last_number, UNFIT: unfit},
        ),
        added=skills.added + mistakes.added,
        admitted=skills.admitted + mistakes.admitted,
        dropped=skills.dropped + mistakes.dropped,
        rejects=(*candidates.rejects, *skills.rejects, *mistakes.rejects),
        num_drafts=candidates.num_drafts,
        num_leaks=candidates.num_leaks,
    )


def choose_memories(memories: Sequence[Memory], num: int) -> list[Memory]:
    """Choose at most ``num`` successes and ``num`` failures, the newest of each problem first; return them in order."""
    chosen: list[int] = []
    for is_success in (True, False):
        num_newer: Counter[str] = Counter()
        order = []
        for place in range(len(memories) - 1, -1, -1):
            memory = memories[place]
            if memory.is_success == is_success:
                order.append((num_newer[memory.problem_id], -place))
                num_newer[memory.problem_id] += 1
        chosen += [-place for _, place in sorted(order)[:num]]
    return [memories[place] for place in sorted(chosen)]
