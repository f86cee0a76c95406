"""Units and counted things after a value: ``24 cm``, ``$5``, ``90^\\circ``, ``9.8 \\mathrm{m/s^2}``, ``18 apples``."""

from __future__ import annotations

import re

from sgsd_lightning.verifiers.math.listed import listed

SPELLINGS = {
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "dm": "dm decimeter decimeters",
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
    "ounce": "oz ounce ounces",
    "percent": "percent pct",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "milligram": "mg milligram milligrams",
    "gram": "g gram grams",
    "kilogram": "kg kilogram kilograms",
    "ton": "t ton tons tonne tonnes",
    "milliliter": "ml milliliter milliliters",
    "liter": "l liter liters litre litres",
    "hertz": "hz hertz",
    "pascal": "pa pascal pascals",
    "mole": "mol mole moles",
    "unit": "unit units",
}
NAME_OF = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings.split()}
CAPITALS = {"N": "newton", "J": "joule", "W": "watt", "V": "volt", "A": "ampere", "K": "kelvin", "C": "celsius"}
"""Units inside a text command only; elsewhere these letters are symbols."""
ABBREVIATED = {"kph": "km/h", "mph": "mile/h", "kmh": "km/h"}
POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
NOT_UNITS = frozenset(
    listed(
        "and or if mod modulo choose factorial squared cubed plus minus over per of to by from when where "
        "with for half halves third thirds quarter quarters dozen hundred thousand million billion trillion "
        "times divided power base not no is are the sin cos tan log ln exp sqrt pi infty infinity"
    )
)
COMMAND = r"\\(?:text|textrm|textit|mathrm|mbox|rm|operatorname)"
POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
EMPTY_COMMAND = re.compile(rf"\(\s*{COMMAND}\s*\{{\s*\}}{POWER}\s*\)|{COMMAND}\s*\{{\s*\}}{POWER}")
IN_COMMAND = re.compile(rf"{COMMAND}\s*\{{([^{{}}]*)\}}")
BRACED_POWER = re.compile(r"\^\s*\{\s*(-?\d)\s*\}")
MARK = "\x01"
"""Marks where a text command began or ended."""
START = re.compile(rf"(?<=[^\s{MARK}a-zA-Z\\(])[\s{MARK}(]*(?=[a-zA-Z])|{MARK}\s*(?=[a-zA-Z])")
UNIT = re.compile(r"(?:[a-zA-Z]|\^-?\d|[\s./*()])+")
MAX_UNIT_LENGTH = 60
UNIT_TOKEN = re.compile(r"([a-zA-Z]+)\s*(?:\^(-?\d))?|(/)")
DEGREES = re.compile(r"(.*\S)\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree)(?:\s*[CF])?", re.DOTALL)
FUNCTION = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc|tg|ctg)(?![a-z])")
PERCENT = re.compile(r"(.*[^\s\\])\s*\\?%", re.DOTALL)
MONEY = re.compile(r"(?:\\?\$|(€|£))\s*(?=[\d.])(.*)", re.DOTALL)
PLAIN_NUMBER = re.compile(r"[+-]?(?:[\d.,]+|(?:\d+\s*)?\\frac\{\d+\}\{\d+\}|(?:\d+\s+)?\d+/\d+)")


def split_unit(text: str) -> tuple[str, str | None]:
    """Split a value from its unit, such as ``m s^-2``; the unit is None if there is none, or an unknown one (removed).

    A single letter is a unit only if a space or a LaTeX text command separates it from the number; in ``2m`` it is a
    factor. The word "units" is no unit.
    """
    value, unit, _ = _split(text)
    return value, unit


def counted_noun(text: str) -> str | None:
    """Return the counted noun in the singular: ``hen`` for ``3 hens``; None for a unit or a bare value."""
    return _split(text)[2]


def _split(text: str) -> tuple[str, str | None, str | None]:
    text = EMPTY_COMMAND.sub("", text).strip()
    for pattern, sign in ((DEGREES, "degree"), (PERCENT, "percent")):
        if (match := pattern.fullmatch(text)) and not FUNCTION.search(match[1]):
            return match[1], sign, None
    if match := MONEY.fullmatch(text):
        return match[2], {"€": "euro", "£": "pound", None: "dollar"}[match[1]], None
    marked = IN_COMMAND.sub(rf"{MARK}\1{MARK}", BRACED_POWER.sub(r"^\1", text))
    for start in START.finditer(marked, max(0, len(marked) - MAX_UNIT_LENGTH)):
        value, is_text = marked[: start.start()], MARK in start[0]
        unit = re.sub(rf"{MARK}|\\(?:cdot|times)(?![a-zA-Z])", " ", marked[start.end() :]).strip(" .)")
        if not value.strip() or value.rstrip()[-1] in "\\(=,+*/^-" or not UNIT.fullmatch(unit):
            continue
        name = _name(unit, is_text) if start[0] or len(unit) > 1 else None
        if name is not None and (is_text or value[-1] in "0123456789})"):
            return _strip_marks(value), name or None, None
        words = [word for word in re.findall(r"[a-zA-Z]+", unit.lower()) if word not in ("old", *POWER_WORDS)]
        is_counted = bool(words) and PLAIN_NUMBER.fullmatch(value) and not NOT_UNITS.intersection(words)
        if is_counted and (is_text or min(map(len, words)) >= 3):
            return value, None, words[-1].removesuffix("s")
    return text, None, None


def _strip_marks(value: str) -> str:
    return re.sub(rf"{MARK}([^{MARK}]*){MARK}", r"\\text{\1}", value).replace(MARK, "").strip()


def _name(unit: str, is_text: bool) -> str | None:
    """Return the canonical name: ``m s^-2`` for ``m/s^2``; "" for the word "units", None for anything else."""
    powers: dict[str, int] = {}
    sign, factor = 1, 1
    text = re.sub(r"\bper\b", "/", unit)
    for spelling, abbreviated in ABBREVIATED.items():
        text = re.sub(rf"\b{spelling}\b", abbreviated, text)
    for match in UNIT_TOKEN.finditer(text):
        word, exponent, slash = match.groups()
        if slash:
            sign = -1
            continue
        if word.lower() in POWER_WORDS:
            factor = POWER_WORDS[word.lower()]
            continue
        if word.lower() == "old":
            continue
        name = CAPITALS.get(word) if is_text and word in CAPITALS else NAME_OF.get(word.lower())
        if name is None:
            return None
        powers[name] = powers.get(name, 0) + sign * factor * int(exponent or 1)
        factor = 1
    if not powers:
        return None
    powers.pop("unit", None)
    return " ".join(name if size == 1 else f"{name}^{size}" for name, size in sorted(powers.items()))
