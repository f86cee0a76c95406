"""Rollout engines: prompts in, sampled completions out."""

from sgsd_lightning.rollouts.base import RolloutEngine, RolloutRequest, check_freshness
from sgsd_lightning.rollouts.transformers_engine import TransformersEngine

__all__ = ["RolloutEngine", "RolloutRequest", "TransformersEngine", "check_freshness"]
