"""Ids of new items: a prefix and a number that this bank has never used."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sgsd_lightning.skills.bank import DYNAMIC_PREFIX
from sgsd_lightning.types.arguments import require

SKILL_PREFIX = "gen_"
MISTAKE_PREFIX = "err_"
__all__ = ["DYNAMIC_PREFIX", "MISTAKE_PREFIX", "SKILL_PREFIX", "ItemIds"]


class ItemIds:
    """Generates ``gen_001``, ``gen_002``, …, each once.

    Args:
        prefix: what the ids begin with.
        used: ids in the bank; only those with the prefix count.
        last_number: the highest number ever used, dropped items included. Keep it with the bank: an id that is used
            again for another text would inherit the evidence of the old one.
        num_digits: the least number of digits.
    """

    def __init__(self, prefix: str, used: Iterable[str] = (), last_number: int = 0, num_digits: int = 3) -> None:
        require(prefix != "", "the prefix of item ids", "not be empty", prefix)
        require(last_number >= 0, "last_number", "be 0 or more", last_number)
        self.prefix = prefix
        self.num_digits = num_digits
        pattern = re.compile(rf"{re.escape(prefix)}([0-9]{{1,18}})")
        numbers = (int(match[1]) for item_id in used if (match := pattern.fullmatch(item_id)))
        self._last_number = max([last_number, *numbers])

    @property
    def last_number(self) -> int:
        """The highest number used so far; 0 for none."""
        return self._last_number

    def next(self) -> str:
        """Return a new id."""
        self._last_number += 1
        return f"{self.prefix}{self._last_number:0{self.num_digits}d}"
