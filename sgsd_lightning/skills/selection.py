"""Which items serve a problem: similarity, what evidence says of them, and a share for those on probation."""

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
"""The status, in an item's extra keys, of one that evidence has not judged yet."""


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """How evidence takes part in retrieval. By default it does not: the paper's retrieval."""

    weight: float = 0.0
    """Lambda: an item is ranked by its similarity plus so many times its usefulness, a number in [0, 1] of which
    0.5 says nothing. The weights of a problem's pairs are the softmax of these sums."""
    exploration: float = 0.5
    """Where in its confidence interval an item's usefulness is taken: 0 the lower bound, 1 the upper one. Items that
    were hardly used have wide intervals, so that more than 0 is their bonus."""
    half_life_steps: float | None = None
    """Optimizer steps after which an observation weighs half; None: it never fades."""
    confidence: float = 0.95
    """Of the intervals."""
    prune_misleading_above: float | None = None
    """Leave out items whose rate of misleading is over this with confidence; None leaves out none. Where all items of a
    kind are out, the problem has no teachers."""
    probation_frac: float = 0.25
    """The share of a problem's pairs that goes to items on probation, at least one of two or more pairs, at the last
    ranks. 0 keeps them from teaching, and so from ever being judged."""

    def __post_init__(self) -> None:
        where, half_life, bound = "contexts.evidence", self.half_life_steps, self.prune_misleading_above
        require(0 <= self.weight < math.inf, f"{where}.weight", "be 0 (off) or more, and finite", self.weight)
        require(0 <= self.exploration <= 1, f"{where}.exploration", "be in [0, 1]", self.exploration)
        require(half_life is None or half_life > 0, f"{where}.half_life_steps", "be above 0, or null", half_life)
        require(0 < self.confidence < 1, f"{where}.confidence", "be in (0, 1)", self.confidence)
        require(bound is None or 0 < bound < 1, f"{where}.prune_misleading_above", "be in (0, 1), or null", bound)
        require(0 <= self.probation_frac <= 1, f"{where}.probation_frac", "be in [0, 1]", self.probation_frac)


def is_on_probation(item: Skill | Mistake) -> bool:
    """Whether an item still has to prove itself."""
    return item.extra.get(STATUS) == PROBATION


class Selection:
    """Ranks a bank's items by similarity and evidence, as the ledger stands when it is made."""

    def __init__(self, bank: SkillBank, ledger: EvidenceLedger, settings: EvidenceSettings) -> None:
        self.settings = settings
        self._skills = self._standing(bank.general_skills, ledger)
        self._mistakes = self._standing(bank.common_mistakes, ledger)

    def rank(self, skills: Similarity, mistakes: Similarity, num: int) -> tuple[Ranking, Ranking]:
        """The best items for one problem, from its similarities [skills] and [mistakes]."""
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
    """Of all items of one kind."""

    bonus: NDArray[np.float32]
    """[items], added to the similarity; -inf for one that is out."""
    on_probation: NDArray[np.bool_]
    """[items]."""
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
