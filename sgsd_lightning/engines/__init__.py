"""Rollout engines: token ids in, sampled completions out."""

from sgsd_lightning.engines.base import GenerationRequest, RolloutEngine, check_freshness
from sgsd_lightning.engines.positions import position_limit
from sgsd_lightning.engines.transformers_engine import TransformersEngine, end_of_sequence_ids

__all__ = [
    "GenerationRequest",
    "RolloutEngine",
    "TransformersEngine",
    "check_freshness",
    "end_of_sequence_ids",
    "position_limit",
]
