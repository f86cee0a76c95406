"""Marks around and inside the texts of a chat, by which they are found again in what a template makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sgsd_lightning.encoding.reserved import Span, place_cuts

_CANDIDATES = [chr(code) for code in (*range(0xFDD0, 0xFDF0), *range(0xE000, 0xF8FF))]
"""Noncharacters, which no text should hold, and then private ones."""


class TornTextError(ValueError):
    """A template cut a text, so that what came of it cannot be told from the template's own."""


class MarkedText(NamedTuple):
    """A rendered chat without its marks."""

    text: str
    is_content: list[bool]
    """Per character: whether it came from a message, rather than from the template. White space around a message
    counts as the template's."""


class Marks(NamedTuple):
    """Four characters that no text of a chat holds."""

    opening: str
    """After a text's first character."""
    closing: str
    """Before its last one. Neither stands at an edge, so that a template trims a marked text as it does any."""
    single: str
    """After the only character of a text."""
    gap: str
    """Inside what the template is not to recognise."""

    @classmethod
    def unlike(cls, texts: Iterable[str]) -> Marks:
        """Marks that none of the texts holds.

        Raises:
            ValueError: if they hold all that could be one.
        """
        used = set().union(*texts)
        free = [candidate for candidate in _CANDIDATES if candidate not in used][:4]
        if len(free) < 4:
            raise ValueError("a chat's texts hold every private character of Unicode; they are no texts")
        return cls(*free)

    def mark(self, text: str, hidden: Sequence[Span]) -> str:
        """The text with marks; a template does not see the strings at ``hidden``."""
        first = len(text) - len(text.lstrip())
        last = len(text.rstrip()) - 1
        if last < first:
            return text
        if first == last:
            return text[: first + 1] + self.single + text[first + 1 :]
        gaps = sorted(min(max(cut, first + 1), last) for cut in place_cuts(hidden))
        insertions = [(first + 1, self.opening), *((gap, self.gap) for gap in gaps), (last, self.closing)]
        places = [0, *(place for place, _ in insertions), len(text)]
        marks = [*(mark for _, mark in insertions), ""]
        return "".join(text[start:end] + mark for start, end, mark in zip(places[:-1], places[1:], marks, strict=True))

    def read(self, rendered: str) -> MarkedText:
        """Take the marks out again, and say which characters they enclosed.

        Raises:
            TornTextError: where they do not stand in pairs.
        """
        text: list[str] = []
        is_content: list[bool] = []
        inside = closes_next = False
        for piece in re.split(f"([{''.join(self)}])", rendered):
            if piece in self:
                if closes_next or (piece in (self.opening, self.single)) == inside or not is_content:
                    raise TornTextError
                if piece in (self.opening, self.single):
                    is_content[-1] = True
                inside = piece in (self.opening, self.gap)
                closes_next = piece == self.closing
                continue
            text.append(piece)
            is_content += [inside] * len(piece)
            if closes_next and piece:
                is_content[-len(piece)] = True
                closes_next = False
        if inside or closes_next:
            raise TornTextError
        return MarkedText("".join(text), is_content)
