"""Scoring: token sequences packed without padding, and per-token scalars out of one forward pass."""

from sgsd_lightning.scoring.attention import resolve_attention
from sgsd_lightning.scoring.loss_mask import LossMaskRule
from sgsd_lightning.scoring.scorer import Scorer

__all__ = ["LossMaskRule", "Scorer", "resolve_attention"]
