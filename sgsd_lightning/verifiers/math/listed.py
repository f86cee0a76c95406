"""Tables of words that are written as a line."""

from __future__ import annotations


def listed(words: str) -> list[str]:
    """The words between the spaces."""
    return words.split()
