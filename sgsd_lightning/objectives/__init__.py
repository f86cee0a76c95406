"""Objectives: scores and verdicts in, a loss out."""

from sgsd_lightning.objectives.advantages import Advantages, GroupAdvantages
from sgsd_lightning.objectives.base import Objective, ObjectiveResult
from sgsd_lightning.objectives.divergence import Divergence, SampledDivergence
from sgsd_lightning.objectives.gated_polarity import GatedPolarity
from sgsd_lightning.objectives.policy_gradient import PolicyGradient
from sgsd_lightning.objectives.weighted_sum import WeightedSum

__all__ = [
    "Advantages",
    "Divergence",
    "GatedPolarity",
    "GroupAdvantages",
    "Objective",
    "ObjectiveResult",
    "PolicyGradient",
    "SampledDivergence",
    "WeightedSum",
]
