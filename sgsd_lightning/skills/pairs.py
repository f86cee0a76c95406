"""Pairs of a skill and a mistake: the k-th best skill with the k-th best mistake, one pair per teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank
from sgsd_lightning.skills.retrieval import Ranking
from sgsd_lightning.types.arguments import require_at_least

Weighting = Literal["softmax", "uniform"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One skill and one mistake, which one teacher reads."""

    skill: Skill
    mistake: Mistake
    score: float
    """Mean of the two items' scores for the problem: similarity, plus evidence if it is used."""
    weight: float
    """context_weight; the weights of a problem's pairs add up to 1."""


def check_num_contexts(bank: SkillBank, num_contexts: int, where: str) -> None:
    """Refuse to ask a bank for more pairs than it can make.

    Raises:
        ValueError: naming the numbers of skills and mistakes.
    """
    num_skills, num_mistakes = len(bank.general_skills), len(bank.common_mistakes)
    require_at_least(1, "contexts.num_contexts", num_contexts)
    if num_contexts > min(num_skills, num_mistakes):
        raise ValueError(
            f"contexts.num_contexts = {num_contexts}, but {where} has {num_skills} skills and {num_mistakes} mistakes, "
            f"which make {min(num_skills, num_mistakes)} pairs; lower num_contexts or add items"
        )


def pair_by_rank(bank: SkillBank, skills: Ranking, mistakes: Ranking, weighting: Weighting) -> list[Pair]:
    """Pair the rankings of one problem by rank; the shorter ranking decides how many pairs there are."""
    ranked = list(zip(skills.indices, mistakes.indices, skills.scores, mistakes.scores, strict=False))
    if not ranked:
        return []
    scores = [(skill_score + mistake_score) / 2 for _, _, skill_score, mistake_score in ranked]
    weights = _softmax(scores) if weighting == "softmax" else [1 / len(ranked)] * len(ranked)
    return [
        Pair(
            skill=bank.general_skills[skill_index],
            mistake=bank.common_mistakes[mistake_index],
            score=score,
            weight=weight,
        )
        for (skill_index, mistake_index, _, _), score, weight in zip(ranked, scores, weights, strict=True)
    ]


def _softmax(scores: Sequence[float]) -> list[float]:
    shifted = np.exp(np.asarray(scores, dtype=np.float64) - max(scores))
    weights: list[float] = (shifted / shifted.sum()).tolist()
    return weights
