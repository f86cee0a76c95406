"""Intervals: how far a measured mean may be off."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

STUDENT_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantile of Student's t at 1 to 9 degrees of freedom."""
NUM_RESAMPLES = 2000


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % interval of a mean over 2 to 10 runs, by Student's t; None for one run."""
    if len(values) < 2:
        return None
    if len(values) - 1 > len(STUDENT_T_975):
        raise ValueError(f"half_width is for 2 to {len(STUDENT_T_975) + 1} runs; got {len(values)}")
    return STUDENT_T_975[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the 95 % percentile bootstrap interval of a mean over independent values, such as one per problem.

    Deterministic in values and seed. Too narrow for few values (under about 20).

    Raises:
        ValueError: without a value.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    generator = random.Random(seed)
    means = sorted(statistics.fmean(generator.choices(values, k=len(values))) for _ in range(NUM_RESAMPLES))
    return Interval(means[round(0.025 * (NUM_RESAMPLES - 1))], means[round(0.975 * (NUM_RESAMPLES - 1))])


class WilsonInterval(NamedTuple):
    """A share with its Wilson score interval, each in [0, 1]."""

    low: float
    value: float
    high: float


def wilson_interval(num_successes: float, num_trials: float, confidence: float = 0.95) -> WilsonInterval:
    """Return a binomial share with its score interval (Wilson, 1927); 0.5 in [0, 1] without a trial.

    Counts need not be whole, since evidence may be decayed.

    ::

        centre = (p + z^2 / 2n) / (1 + z^2 / n)
        half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)
    """
    if num_trials <= 0:
        return WilsonInterval(0.0, 0.5, 1.0)
    share = min(1.0, max(0.0, num_successes / num_trials))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 + z * z / num_trials
    centre = (share + z * z / (2 * num_trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / num_trials + z * z / (4 * num_trials * num_trials))
    return WilsonInterval(max(0.0, centre - half), share, min(1.0, centre + half))
