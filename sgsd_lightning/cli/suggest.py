"""What a misspelt word was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 16
"""More names than this are not listed where none is near."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like it; None if none is."""
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(name.lower(), name)
    found = difflib.get_close_matches(word.lower(), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def suggestion(word: str, known: Iterable[str], prefix: str = "", otherwise: str = "") -> str:
    """The end of an error's sentence: the nearest word, or the words that there are, if they are few.

    Args:
        word: as it was written.
        known: what would be right.
        prefix: what stands in front of each in full.
        otherwise: said last if none is near: where to look.
    """
    names = list(known)
    near = nearest(word, names)
    if near is not None:
        return f"; did you mean {prefix}{near}?"
    listed = f"; there are {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""
    return f"{listed}{otherwise}"
