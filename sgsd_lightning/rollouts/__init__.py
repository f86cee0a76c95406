"""Rollouters: problems in, rollouts out; who speaks when, and what is read before."""

from sgsd_lightning.rollouts.base import Rollouter, SamplingPolicy
from sgsd_lightning.rollouts.single_turn import EvaluationTurn, SingleTurn

__all__ = ["EvaluationTurn", "Rollouter", "SamplingPolicy", "SingleTurn"]
