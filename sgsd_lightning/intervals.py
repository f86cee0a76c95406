"""Intervals: how far a measured mean may be off."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

STUDENT_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantile of Student's t at 1 to 9 degrees of freedom."""
NUM_RESAMPLES = 2000


class Interval(NamedTuple):
    """Where the truth lies in 95 of 100 cases."""

    low: float
    high: float


def half_width(values: Sequence[float]) -> float | None:
    """Of the 95 % interval of a mean over 2 to 10 independent runs, by Student's t; None for one run."""
    if len(values) < 2:
        return None
    if len(values) - 1 > len(STUDENT_T_975):
        raise ValueError(f"half_width is for 2 to {len(STUDENT_T_975) + 1} runs; got {len(values)}")
    return STUDENT_T_975[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """The 95 % interval of a mean over things drawn at random, such as problems: percentiles of its resamples.

    The same for the same values and seed. Few problems (under about 20) make it too narrow.

    Raises:
        ValueError: without a value.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    generator = random.Random(seed)
    means = sorted(statistics.fmean(generator.choices(values, k=len(values))) for _ in range(NUM_RESAMPLES))
    return Interval(means[round(0.025 * (NUM_RESAMPLES - 1))], means[round(0.975 * (NUM_RESAMPLES - 1))])
