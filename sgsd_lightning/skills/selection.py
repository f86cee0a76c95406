"""Selects the items for a problem by similarity and evidence, with a share for items on probation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgsd_lightning.metrics.intervals import WilsonInterval
from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank
from sgsd_lightning.skills.evidence import EvidenceLedger
from sgsd_lightning.skills.retrieval import Ranking, Similarity, best
from sgsd_lightning.types.arguments import require

STATUS = "status"
PROBATION = "probation"
"""The status, in an item's extra keys, of one without enough evidence yet."""


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """How evidence enters retrieval. By default it does not, as in the paper."""

    weight: float = 0.0
    """Lambda: items are ranked by similarity + lambda * usefulness, which lies in [0, 1] with 0.5 for no evidence. The
    weights of a problem's pairs are the softmax of these sums."""
    exploration: float = 0.5
    """Which point of its confidence interval counts as an item's usefulness: 0 the lower bound, 1 the upper one. Rarely
    used items have wide intervals, so that a value near 1 favours them."""
    half_life_steps: float | None = None
    """Optimizer steps after which an observation weighs half; None keeps full weight for ever."""
    confidence: float = 0.95
    """Confidence level of the intervals."""
    prune_misleading_above: float | None = None
    """Leave out items whose misleading rate is above this with confidence; None leaves out none. If all items of a kind
    are left out, the problem has no teachers."""
    probation_frac: float = 0.25
    """The share of a problem's pairs, at the last ranks, that goes to items on probation; at least one pair of two or
    more. 0 keeps such items from teaching, and so from ever being judged."""

    def __post_init__(self) -> None:
        where, half_life, bound = "contexts.evidence", self.half_life_steps, self.prune_misleading_above
        require(0 <= self.weight < math.inf, f"{where}.weight", "be 0 (off) or more, and finite", self.weight)
        require(0 <= self.exploration <= 1, f"{where}.exploration", "be in [0, 1]", self.exploration)
        require(half_life is None or half_life > 0, f"{where}.half_life_steps", "be above 0, or null", half_life)
        require(0 < self.confidence < 1, f"{where}.confidence", "be in (0, 1)", self.confidence)
        require(bound is None or 0 < bound < 1, f"{where}.prune_misleading_above", "be in (0, 1), or null", bound)
        require(0 <= self.probation_frac <= 1, f"{where}.probation_frac", "be in [0, 1]", self.probation_frac)


def is_on_probation(item: Skill | Mistake) -> bool:
    """Whether an item still waits for enough evidence."""
    return item.extra.get(STATUS) == PROBATION


class Selection:
    """Ranks a bank's items by similarity and by the evidence in the ledger at construction."""

    def __init__(self, bank: SkillBank, ledger: EvidenceLedger, settings: EvidenceSettings) -> None:
        self.settings = settings
        self._skills = self._standing(bank.general_skills, ledger)
        self._mistakes = self._standing(bank.common_mistakes, ledger)

    def rank(self, skills: Similarity, mistakes: Similarity, num: int) -> tuple[Ranking, Ranking]:
        """Rank the items for one problem from its similarities, [skills] and [mistakes]."""
        return self._skills.rank(skills, num), self._mistakes.rank(mistakes, num)

    def _standing(self, items: Sequence[Skill | Mistake], ledger: EvidenceLedger) -> _Standing:
        places = {item.item_id: place for place, item in enumerate(items)}
        bonus = np.full(len(items), self._bonus(WilsonInterval(0.0, 0.5, 1.0)), dtype=np.float32)
        if self.settings.weight > 0 or self.settings.prune_misleading_above is not None:
            for item_id in places.keys() & ledger.items.keys():
                bonus[places[item_id]] = self._bonus(ledger.usefulness(item_id))
                if self._is_out(item_id, ledger):
                    bonus[places[item_id]] = -np.inf
        on_probation = np.array([is_on_probation(item) for item in items], dtype=bool)
        return _Standing(bonus=bonus, on_probation=on_probation, probation_frac=self.settings.probation_frac)

    def _bonus(self, usefulness: WilsonInterval) -> float:
        low, _, high = usefulness
        return self.settings.weight * (low + self.settings.exploration * (high - low))

    def _is_out(self, item_id: str, ledger: EvidenceLedger) -> bool:
        bound = self.settings.prune_misleading_above
        return bound is not None and ledger.misleading(item_id).low > bound


@dataclass(frozen=True, kw_only=True, slots=True)
class _Standing:
    """The bonus and probation of all items of one kind."""

    bonus: NDArray[np.float32]
    """[items], added to the similarity; -inf for items that are left out."""
    on_probation: NDArray[np.bool_]
    """[items] bool."""
    probation_frac: float

    def rank(self, similarity: Similarity, num: int) -> Ranking:
        scores = similarity + self.bonus
        if not self.on_probation.any():
            return best(scores, num)
        proven = best(np.where(self.on_probation, -np.inf, scores), num)
        candidates = best(np.where(self.on_probation, scores, -np.inf), self._num_probation(num))
        kept = min(len(proven.indices), num - len(candidates.indices))
        return Ranking(
            indices=proven.indices[:kept] + candidates.indices, scores=proven.scores[:kept] + candidates.scores
        )

    def _num_probation(self, num: int) -> int:
        if num < 2 or self.probation_frac == 0:
            return 0
        return max(1, round(self.probation_frac * num))
