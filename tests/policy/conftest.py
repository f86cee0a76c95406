"""Tiny models and what their scores are compared with."""

from __future__ import annotations

from tests.support.tiny_models import make_ids, make_model, make_rollout, own_distributions, own_logprob

__all__ = ["make_ids", "make_model", "make_rollout", "own_distributions", "own_logprob"]
