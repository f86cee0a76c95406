"""Decides by evidence about items that were written while training: admit, drop, or wait for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgsd_lightning.skills.bank import Item, is_dynamic
from sgsd_lightning.skills.evidence import EvidenceLedger
from sgsd_lightning.skills.selection import STATUS, is_on_probation
from sgsd_lightning.types.arguments import require

ADMITTED = "admitted"
"""The status, in an item's extra keys, of one that evidence has admitted."""

UNFIT = "unfit_items"
"""The key of a bank's metadata for what evidence spoke against, which is not to come back."""


@dataclass(frozen=True, kw_only=True)
class AdmissionSettings:
    """How much evidence a decision on a dynamic item needs. A use is a judged rollout that its teacher scored."""

    min_uses: int = 64
    """Nothing is decided before this many uses."""
    max_uses: int = 1024
    """An item on probation that is undecided after this many uses is dropped: it makes no difference."""
    usefulness: float = 0.5
    """Admitted when usefulness is above this with confidence, dropped when it is below. 0.5: as often helpful as
    misleading."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_uses <= self.max_uses:
            raise ValueError(
                "bank_maintenance.admission.min_uses must be at least 1 and at most max_uses; "
                f"got {self.min_uses} and {self.max_uses}"
            )
        require(0 <= self.usefulness <= 1, "bank_maintenance.admission.usefulness", "lie in [0, 1]", self.usefulness)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """An item that leaves the bank, and why."""

    item_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The decisions on the items of one kind."""

    admitted: tuple[str, ...]
    dropped: tuple[Dropped, ...]


def judge(
    items: Sequence[Item], ledger: EvidenceLedger, settings: AdmissionSettings, max_dropped: int
) -> tuple[tuple[Item, ...], Judged]:
    """Judge the items of one kind; return those that stay, in their order, and the decisions. Static items always stay.

    At most ``max_dropped`` items are dropped, the worst first; the others are judged again next time.
    """
    verdicts = {item.item_id: _verdict(item.item_id, is_on_probation(item), ledger, settings) for item in items}
    unfit = [item_id for item_id, verdict in verdicts.items() if is_dynamic(item_id) and isinstance(verdict, Dropped)]
    unfit.sort(key=lambda item_id: ledger.usefulness(item_id).value)
    dropped = [verdict for item_id in unfit[:max_dropped] if isinstance(verdict := verdicts[item_id], Dropped)]
    gone = {decision.item_id for decision in dropped}
    admitted = [item.item_id for item in items if is_on_probation(item) and verdicts[item.item_id] == ADMITTED]
    kept = [_with_status(item, ADMITTED) if item.item_id in admitted else item for item in items]
    return (
        tuple(item for item in kept if item.item_id not in gone),
        Judged(admitted=tuple(admitted), dropped=tuple(dropped)),
    )


def over_capacity(items: Sequence[Item], ledger: EvidenceLedger, capacity: int) -> list[Dropped]:
    """List the dynamic items to drop for a bank of ``capacity``: the least useful first, ties by the most uses.

    Usefulness is the middle of its interval, so that an item is not dropped for being new.
    """
    dynamic = [item.item_id for item in items if is_dynamic(item.item_id)]
    excess = max(0, len(dynamic) - capacity)

    def worth(item_id: str) -> tuple[float, int]:
        low, _, high = ledger.usefulness(item_id)
        return (low + high) / 2, -ledger.num_uses(item_id)

    return [
        Dropped(item_id=item_id, reason=f"the least useful of more than {capacity} dynamic items")
        for item_id in sorted(dynamic, key=worth)[:excess]
    ]


def _verdict(item_id: str, on_probation: bool, ledger: EvidenceLedger, settings: AdmissionSettings) -> Dropped | str:
    """Return ``ADMITTED``, a reason to drop the item, or "" while undecided."""
    num_uses = ledger.num_uses(item_id)
    if num_uses < settings.min_uses:
        return ""
    low, value, high = ledger.usefulness(item_id)
    evidence = f"usefulness {value:.2f} [{low:.2f}, {high:.2f}] after {num_uses} uses"
    if high < settings.usefulness:
        return Dropped(item_id=item_id, reason=f"misleading: {evidence}")
    if low > settings.usefulness:
        return ADMITTED
    if on_probation and num_uses >= settings.max_uses:
        return Dropped(item_id=item_id, reason=f"makes no difference: {evidence}")
    return ""


def _with_status(item: Item, status: str) -> Item:
    return replace(item, extra={**item.extra, STATUS: status})
