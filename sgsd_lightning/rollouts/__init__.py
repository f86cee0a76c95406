"""Rollouters: sample rollouts for problems, and decide who speaks when and what each turn reads."""

from sgsd_lightning.rollouts.base import Rollouter, SamplingPolicy
from sgsd_lightning.rollouts.single_turn import EvaluationTurn, SingleTurn

__all__ = ["EvaluationTurn", "Rollouter", "SamplingPolicy", "SingleTurn"]
