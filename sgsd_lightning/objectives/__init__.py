"""Objectives: scores and verdicts in, a loss out."""

from sgsd_lightning.objectives.base import Objective, ObjectiveResult
from sgsd_lightning.objectives.gated_polarity import GatedPolarity

__all__ = ["GatedPolarity", "Objective", "ObjectiveResult"]
