"""Verdicts as objectives read them."""

from __future__ import annotations

from sgsd_lightning.types import Verdict


def reward_verdict(reward: float | None) -> Verdict:
    """A verdict of that reward, accepted above a half; None could not be judged."""
    if reward is None:
        return Verdict(reward=None, accepted=None, outcome=0, answer=None)
    return Verdict(reward=reward, accepted=reward > 0.5, outcome=1 if reward > 0.5 else -1, answer=None)
