"""Extracts the formula, number or point that a sentence states."""

from __future__ import annotations

import re

FORMULA = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$([^$]+)\$", re.DOTALL)
NUMBER_WORD = re.compile(r"(?<![\w.,^_{\\/-])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w^_/]|[.,]\d)")
NEGATION = re.compile(
    r"\b(?:not|no|none|never|except|unless|without|neither|nor|or|cannot|either|incorrect|wrong)\b|n't\b"
)
NUMERALS = re.compile(
    r"\b(?:hal(?:f|ves)|thirds?|quarters?|dozens?|hundreds?|thousands?|[mb]illions?|squared?|cubed?|root|factorial|times|plus|"
    r"minus|power|mod|modulo|base|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty)\b"
)
MIN_WORDS = 2
VERDICT = re.compile(r"(yes|no)\b[\s,.:;!-]+\S.*", re.IGNORECASE | re.DOTALL)
ASIDE = re.compile(
    r"\s*,?\s*\b(?:attained|achieved|reached|occurring|when|where|which|since|because|obtained|with|for\s+(?:all|any|every|"
    r"each|example)|if|at)\b.*",
    re.DOTALL,
)
DEFINITION = re.compile(r"\s*,?\s*\b(?:where|with|for\s+(?:all|any|every|each|some|real|integers?))\b")
STATES = re.compile(r"\b(?:is|are|be|equals?|equal\s+to|has|have|exactly|only|get|obtain|namely)\b[^.]*$")
POINT = re.compile(r"(?:^|\s)([A-Z]?\s*\([^()]*,[^()]*\))$")


def only_expression(text: str) -> str | None:
    """Return the formula or number of a sentence that has exactly one, without negation or number words; else None.

    Formulas in a clause after the statement, such as where a value is attained, are ignored.
    """
    text = text.strip()
    if VERDICT.fullmatch(text):
        return text.split()[0].strip(",.:;!-")
    head, _, conclusion = text.rpartition("i.e.")
    if head:
        return conclusion.strip(" ,.") or None
    return _find_statement(text) or _find_statement(_without_aside(text))


def _find_statement(text: str) -> str | None:
    formulas = [next(group for group in match.groups() if group) for match in FORMULA.finditer(text)]
    words = FORMULA.sub(" ", text)
    if len(re.findall(r"(?<![\\\w])[a-zA-Z]{2,}", words)) < MIN_WORDS:
        return None
    if NEGATION.search(words.lower()) or NUMERALS.search(words.lower()):
        return None
    if formulas:
        return formulas[0] if len(formulas) == 1 and not re.search(r"\d", words) else None
    if point := POINT.search(text.rstrip(" .")):
        return point[1].strip()
    numbers = NUMBER_WORD.findall(text)
    is_plain = len(re.findall(r"\d+(?:[.,]\d+)*", text)) == 1 and not re.search(r"[\\=^_+*/<>]", text)
    return numbers[0] if len(numbers) == 1 and is_plain else None


def _without_aside(text: str) -> str:
    """Cut a statement after its first formula at a word such as "attained" or "where"."""
    first = FORMULA.search(text)
    if first is None:
        return text if re.search("[:;]", text) else ASIDE.sub("", text)
    before, after = text[: first.end()], text[first.end() :]
    if DEFINITION.match(after):
        return before
    if not STATES.search(text[: first.start()]) and not re.match(r"\s*(?:is|are)\b", after):
        return text
    aside = ASIDE.match(after)
    return before if aside else text
