"""Quantities in several units: ``5 ft 3 in``, ``1 hour and 30 minutes``, ``3 m 20 cm``; and times of day: ``12:30``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from sgsd_lightning.verifiers.math.exact_numbers import exact_number
from sgsd_lightning.verifiers.math.units import IN_COMMAND, NAME_OF

SIZES: dict[str, dict[str, Fraction | int]] = {
    "metric length": {"km": 1_000_000, "m": 1000, "dm": 100, "cm": 10, "mm": 1},
    "imperial length": {"mile": 63_360, "yard": 36, "foot": 12, "inch": 1},
    "time": {"week": 604_800, "day": 86_400, "hour": 3600, "minute": 60, "m": 60, "second": 1},
    "calendar": {"year": 12, "month": 1},
    "mass": {"ton": 1_000_000_000, "kilogram": 1_000_000, "gram": 1000, "milligram": 1},
    "imperial mass": {"pound": 16, "ounce": 1},
    "volume": {"liter": 1000, "milliliter": 1},
    "money": {"dollar": 100, "cent": 1},
    "euros": {"euro": 100, "cent": 1},
}
"""Units that stand together, in multiples of the smallest."""
PART = re.compile(r"(\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\}|\d+/\d+|\d+\s+\d+/\d+)\s*([a-zA-Z]+)\.?")
SEPARATOR = re.compile(r"\s*(?:,\s*(?:and\s+)?|\band\s+)?")
COMPOUND = re.compile(r"\d\.?\s*([a-zA-Z]+)\.?\s+\d[\d./]*\s*([a-zA-Z]+)\b")
TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d\d)")
HOURS, MINUTES = 24, 60


@dataclass(frozen=True, slots=True)
class Quantity:
    """The sum of values in ever smaller units of one kind."""

    kind: str
    parts: tuple[tuple[str, Fraction], ...]

    @property
    def total(self) -> Fraction:
        """In multiples of the kind's smallest unit."""
        return sum((value * SIZES[self.kind][unit] for unit, value in self.parts), Fraction(0))


def quantity(text: str) -> Quantity | None:
    """Read a quantity in one or more units of :data:`SIZES`, the largest first; None for any other text."""
    text = IN_COMMAND.sub(r" \1 ", text).strip()
    parts: list[tuple[str, Fraction]] = []
    position = 0
    while position < len(text):
        match = PART.match(text, position)
        value, unit = (exact_number(match[1]), NAME_OF.get(match[2].lower())) if match else (None, None)
        if match is None or value is None or unit is None:
            return None
        parts.append((unit, value))
        separator = SEPARATOR.match(text, match.end())
        position = separator.end() if separator else match.end()
    for kind, sizes in SIZES.items():
        found = [sizes.get(unit, 0) for unit, _ in parts]
        if found and all(found) and found == sorted(set(found), reverse=True):
            return Quantity(kind, tuple(parts))
    return None


def is_compound(text: str) -> bool:
    """Whether values with units stand side by side, whose order therefore counts."""
    match = COMPOUND.search(IN_COMMAND.sub(r" \1 ", text))
    return match is not None and all(unit.lower() in NAME_OF for unit in match.groups())


def same_total(quantity: Quantity | None, other: Quantity | None) -> bool:
    """Whether two quantities of one kind are equal, such as ``1 h 30 min`` and ``90 min``."""
    if quantity is None or other is None:
        return False
    return quantity.kind == other.kind and quantity.total == other.total


def is_time_of_day(text: str) -> bool:
    """Whether a text is a time such as ``12:30``, not a ratio, which would be in lowest terms."""
    match = TIME_OF_DAY.fullmatch(text.strip())
    if match is None:
        return False
    hours, minutes = int(match[1]), int(match[2])
    return hours <= HOURS and minutes < MINUTES and math.gcd(hours, minutes) > 1
