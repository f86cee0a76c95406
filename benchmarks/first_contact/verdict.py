"""What a step says: how it went, in one sentence, and what the steps after it have to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["good", "act", "bad", "skipped"]
"""``good``: as this repository says it is. ``act``: nothing is wrong, and a setting, a table or a claim has to follow.
``bad``: wrong numbers, or it did not run. ``skipped``: it was not tried, or not to the end."""

Need = Literal["gpu", "compiler", "cpu only"]
"""``gpu``: a CUDA device. ``compiler``: what Triton needs to launch a kernel. ``cpu only``: of steps that stand in for
others where there is no GPU."""

Found = Mapping[str, Any]
"""What a probe measured, as it comes from its JSON file; anything may be missing where the probe was ended."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict about one step."""

    outcome: Outcome
    sentence: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the steps after this one run under."""
    lacks: Mapping[Need, str] = field(default_factory=dict)
    """What the steps after this one cannot have, and why."""


def per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def listed(names: list[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
