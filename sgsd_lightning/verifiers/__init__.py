"""Verifiers: a completion in, a verdict out."""

from sgsd_lightning.verifiers.base import Grade, TruncatedRollouts, Verifier
from sgsd_lightning.verifiers.math.equivalence import math_equal
from sgsd_lightning.verifiers.math.extraction import extract_answer
from sgsd_lightning.verifiers.math_answer import MathAnswer
from sgsd_lightning.verifiers.noisy import NoisyVerifier
from sgsd_lightning.verifiers.reasoning_gym_score import ReasoningGymVerifier
from sgsd_lightning.verifiers.reward_function import RewardFunction

__all__ = [
    "Grade",
    "MathAnswer",
    "NoisyVerifier",
    "ReasoningGymVerifier",
    "RewardFunction",
    "TruncatedRollouts",
    "Verifier",
    "extract_answer",
    "math_equal",
]
