"""Units and counted things after a value: ``24 cm``, ``$5``, ``90^\\circ``, ``18\\text{ apples}``."""

from __future__ import annotations

import re

SPELLINGS = {
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "degree": "degree degrees deg",
    "radian": "rad radian radians",
    "dollar": "dollar dollars usd",
    "cent": "cent cents",
    "euro": "euro euros",
    "pound": "pound pounds lb lbs",
    "percent": "percent",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "gram": "g gram grams",
    "kilogram": "kg kilogram kilograms",
    "liter": "l liter liters litre litres",
    "km/h": "km/h kph",
    "mile/h": "mph mi/h",
    "m/s": "m/s",
    "unit": "unit units",
}
NAME_OF = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings.split()}
MODIFIERS = ("square", "cubic", "sq", "cu", "old")
NOT_UNITS = frozenset(
    [
        "and",
        "or",
        "if",
        "mod",
        "modulo",
        "choose",
        "factorial",
        "squared",
        "cubed",
        "plus",
        "minus",
        "over",
        "per",
        "of",
        "to",
        "by",
        "from",
        "when",
        "where",
        "with",
        "for",
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
        "quarters",
        "dozen",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "times",
        "divided",
        "power",
        "base",
        "not",
        "no",
        "is",
        "are",
        "is",
        "the",
        "sin",
        "cos",
        "tan",
        "log",
        "ln",
        "exp",
        "sqrt",
        "pi",
        "infty",
        "infinity",
    ]
)
POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
COMMAND = r"\\(?:text|textrm|textit|mathrm|mbox|rm|operatorname)"
COMMAND_UNIT = re.compile(rf"(.*[^\s\\(=,+*/^-])\s*\(?{COMMAND}\s*\{{([a-zA-Z./ ]*)\}}{POWER}\)?", re.DOTALL)
EMPTY_COMMAND = re.compile(rf"\(\s*{COMMAND}\s*\{{\s*\}}{POWER}\s*\)|{COMMAND}\s*\{{\s*\}}{POWER}")
WORD_UNIT = re.compile(rf"(.*[\d}})])(\s*)([a-zA-Z]+(?:/[a-z])?(?:\.?\s+[a-zA-Z]+){{0,3}})\.?{POWER}", re.DOTALL)
DEGREES = re.compile(r"(.*\S)\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree)", re.DOTALL)
PERCENT = re.compile(r"(.*[^\s\\])\s*\\?%", re.DOTALL)
MONEY = re.compile(r"(?:\\?\$|(€|£))\s*(?=[\d.])(.*)", re.DOTALL)
PLAIN_NUMBER = re.compile(r"[+-]?[\d.,]+")


def split_unit(text: str) -> tuple[str, str | None]:
    """The value, and the name of its unit; None where there is no unit or none known (then still taken off).

    Powers are dropped (``cm^2`` is ``cm``). A lone letter is a unit only where a space or a LaTeX text command
    separates it from the number: in ``2m`` it is a factor.
    """
    text = EMPTY_COMMAND.sub("", text).strip()
    for pattern, sign in ((DEGREES, "degree"), (PERCENT, "percent")):
        if match := pattern.fullmatch(text):
            return match[1], sign
    if match := MONEY.fullmatch(text):
        return match[2], {"€": "euro", "£": "pound", None: "dollar"}[match[1]]
    if match := COMMAND_UNIT.fullmatch(text):
        words = _words(match[2])
        name = _name(words)
        if name or _is_counted(match[1], words):
            return match[1], name
    if match := WORD_UNIT.fullmatch(text):
        value, space, phrase = match[1], match[2], match[3]
        words = _words(phrase)
        name = _name(words) if space or len(phrase) > 1 else None
        if name or (min(map(len, words)) >= 3 and _is_counted(value, words)):
            return value, name
    return text, None


def _words(phrase: str) -> list[str]:
    words = phrase.lower().replace(".", " ").split()
    return [word for word in words if word not in MODIFIERS]


def _name(words: list[str]) -> str | None:
    return NAME_OF.get(words[0]) if len(words) == 1 else None


def _is_counted(value: str, words: list[str]) -> bool:
    """Whether words after a plain number say what was counted (``12 apples``) and do not change it (``12 dozen``)."""
    return PLAIN_NUMBER.fullmatch(value.strip()) is not None and not NOT_UNITS.intersection(words)
