"""Word lists, written as a string for the sake of short tables."""

from __future__ import annotations


def listed(words: str) -> list[str]:
    """Split a string at its spaces."""
    return words.split()
