r"""Detects answers in texts: numbers by value, everything else by spelling.

A number counts where it stands by itself: 12 is in "12", "12.0", "1/4 of 48 is 12", ``\frac{24}{2}`` and "12 cm",
not in "120", "1.2", ``x_{12}``, ``x^12`` or "12x", which mean something else. Signs are ignored: 12 all but
reveals -12. Numbers written as words are not recognised.

Small numbers count too: "divide by 2" is refused if the answer is 2, since its writer saw the answer and one item is
worth less than a bank that can be trusted. Few items are lost: of the published candidates about 1 skill in 70 and 1
mistake in 14 contains a given one-digit answer of another problem (benchmarks/merge_banks.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction

_DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_LATEX_FRACTION = r"\\[dtc]?frac\s*(?:\{\s*-?\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))"
_NUMBER = re.compile(
    rf"{_LATEX_FRACTION}"
    rf"|(?<![\w.^\\])(?<![_^]\{{)(?:(\d+)\s*/\s*(\d+)|({_DIGITS}))(?!\d|\.\d|,\d{{3}}(?!\d)|[A-Za-z](?![A-Za-z])|[A-Za-z]?[_^])"
)
_SPACING = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|\\?\$|~|\\[()\[\]]|\^\s*\{?\s*\\circ\s*\}?")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\?%|\\\$")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_FRACTION_OF_ANYTHING = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ASSIGNMENT = re.compile(r"\s*\\?[A-Za-z]\w*\s*=\s*([^=]+)")
_TOKEN = re.compile(r"[A-Za-z]+|\d+(?:\.\d+)?|[^\w\s{}]")
_SAME = {
    ord(character): spelling
    for character, spelling in (
        ("\N{MINUS SIGN}", "-"),
        ("\N{EN DASH}", "-"),
        ("\N{MULTIPLICATION SIGN}", "\\times "),
        ("\N{GREEK SMALL LETTER PI}", "\\pi "),
        ("\N{SQUARE ROOT}", "\\sqrt "),
        ("\N{INFINITY}", "\\infty "),
        ("\N{DEGREE SIGN}", " "),
    )
}


def contains_answer(texts: Iterable[str], answer: str) -> bool:
    """Whether one of the texts contains the answer, as this file's first lines define it; never for an empty answer."""
    answer = _plain(answer)
    if match := _ASSIGNMENT.fullmatch(answer):
        answer = match[1].strip()
    if not answer:
        return False
    value = number_of(answer)
    plain = [_plain(text) for text in texts]
    if value is not None:
        return any(value in find_numbers(text) for text in plain)
    pattern = _spelling(answer)
    return pattern is not None and any(pattern.search(_one_line(text)) for text in plain)


def number_of(answer: str) -> Fraction | None:
    """Return the absolute value of an answer that is one number, with or without a unit; None for other answers."""
    bare = _UNIT.sub(" ", answer).strip().removeprefix("-").removeprefix("+").strip().rstrip(".")
    match = _NUMBER.fullmatch(bare)
    return _parse_value(match) if match else None


def find_numbers(text: str) -> set[Fraction]:
    """Return the absolute values of the numbers that stand by themselves in a text."""
    return {value for match in _NUMBER.finditer(text) if (value := _parse_value(match)) is not None}


def _parse_value(match: re.Match[str]) -> Fraction | None:
    *parts, digits = match.groups()
    if digits is not None:
        return Fraction(digits.replace(",", ""))
    top, bottom = (int(part) for part in parts if part is not None)
    return Fraction(top, bottom) if bottom else None


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_SAME)).replace("{,}", ",")
    return _SPACING.sub(" ", text).strip()


def _one_line(text: str) -> str:
    """Normalise a text for the search of answers: no text commands, fractions with a slash, no braces."""
    text = _FRACTION_OF_ANYTHING.sub(r"\1/\2", _TEXT_COMMAND.sub(r"\1", text))
    return text.replace("\\", "").replace("{", " ").replace("}", " ")


def _spelling(answer: str) -> re.Pattern[str] | None:
    """Return a pattern of the answer's words and signs in a row: any spaces; any case, but for a single letter."""
    tokens = _TOKEN.findall(_one_line(answer))
    if not any(token.isalnum() for token in tokens):
        return None
    is_letter = len(tokens) == 1 and len(tokens[0]) == 1
    body = r"[\s{}]*".join(re.escape(token) for token in tokens)
    before = r"(?<![A-Za-z0-9])" if tokens[0].isalnum() else ""
    after = r"(?![A-Za-z0-9])" if tokens[-1].isalnum() else ""
    return re.compile(before + body + after, 0 if is_letter else re.IGNORECASE)
