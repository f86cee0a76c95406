"""Translates sets, numbers and ordinals from words to formulas."""

from __future__ import annotations

import re

from sgsd_lightning.verifiers.math.listed import listed

SMALL = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
ORDINALS = listed("zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth")
NUMBERS = {word: str(value) for words in (SMALL, ORDINALS) for value, word in enumerate(words)}
ORDINAL = re.compile(
    r"(?:the\s+)?(\d+)\s*(?:\^\s*)?\{?\s*(?:\\(?:text|mathrm|textrm|mbox|rm)\s*\{)?\s*(?:st|nd|rd|th)\s*\}*(?:\s+[a-z]+)?",
    re.IGNORECASE,
)
TEXT = re.compile(r"\\(?:text|textrm|textbf|mbox|mathrm)\s*\{([^{}]*)\}")
QUANTIFIER = r"(?:[a-z]\s+(?:is|can be)\s+)?(?:the\s+)?(?:set\s+of\s+)?(?:all|any|every|each)?\s*(?:the\s+)?"
SIGN_WORD = r"(?P<sign>positive|negative|non-?negative|nonzero|non-zero)?\s*"
KIND = r"(?P<kind>real|integer|natural|rational|whole|complex)s?(?:\s+numbers?)?"
VALUES = r"(?:\s+(?:values?\s+)?(?:of|for)?\s*[a-z])?"
EXCEPT = (
    r"(?:\s*,?\s*(?:except(?:\s+for)?|other\s+than|excluding|but(?:\s+not)?|without)\s+(?:[a-z]\s*=\s*)?(?P<holes>.+))?"
)
SET_OF_NUMBERS = re.compile(QUANTIFIER + SIGN_WORD + KIND + VALUES + EXCEPT, re.IGNORECASE)
SUCH_THAT = re.compile(
    QUANTIFIER
    + r"(?P<kind>real|integer)s?(?:\s+numbers?)?\s+(?P<letter>[a-z])\s*,?\s*(?:such\s+that|with|where|satisfying)\s+"
    r"(?P<condition>.+)",
    re.IGNORECASE,
)
BOUNDED = re.compile(
    QUANTIFIER + r"(?P<kind>real|integer)s?(?:\s+numbers?)?\s+(?P<bound>greater\s+than(?:\s+or\s+equal\s+to)?|"
    r"less\s+than(?:\s+or\s+equal\s+to)?|at\s+least|at\s+most)\s+(?P<value>\S+)",
    re.IGNORECASE,
)
BOUNDS = {"greater": ">", "less": "<", "at least": r"\ge ", "at most": r"\le "}
NOTHING = re.compile(
    r"(?:(?:the\s+)?empty\s+set|(?:there\s+(?:is|are)\s+)?no\s+(?:real\s+|such\s+)?(?:solutions?|values?|roots?)|none)"
    r"(?:\s+exists?)?",
    re.IGNORECASE,
)
SETS = {
    ("real", ""): r"\mathbb{R}", ("real", "positive"): r"(0,\infty)", ("real", "negative"): r"(-\infty,0)",
    ("real", "nonnegative"): r"[0,\infty)", ("real", "nonzero"): r"\mathbb{R}\setminus\{0\}",
    ("integer", ""): r"\mathbb{Z}", ("integer", "positive"): r"\mathbb{Z}^{+}",
    ("integer", "negative"): r"\mathbb{Z}^{-}", ("natural", ""): r"\mathbb{N}", ("rational", ""): r"\mathbb{Q}",
    ("rational", "positive"): r"\mathbb{Q}^{+}", ("complex", ""): r"\mathbb{C}",
}  # fmt: skip


def in_symbols(text: str) -> str:
    """Translate a text that names a set, an ordinal or a small number; keep any other text."""
    text = text.strip()
    if match := ORDINAL.fullmatch(text):
        return match[1]
    plain = re.sub(r"\s+", " ", TEXT.sub(r"\1", text)).strip(" .")
    if plain.lower() in NUMBERS:
        return NUMBERS[plain.lower()]
    if NOTHING.fullmatch(plain):
        return r"\emptyset"
    if match := SUCH_THAT.fullmatch(plain) or BOUNDED.fullmatch(plain):
        return _to_set_builder(match.groupdict())
    match = SET_OF_NUMBERS.fullmatch(plain)
    if match is None or not re.search(r"numbers?|s\b", plain):
        return text
    sign = (match["sign"] or "").lower().replace("-", "")
    found = SETS.get((match["kind"].lower(), sign))
    if found is None:
        return text
    if match["holes"] is None:
        return found
    holes = re.sub(r"\s*,?\s*\b(?:and|or)\b\s*", ", ", match["holes"]).replace("$", "")
    return rf"{found}\setminus\{{{holes}\}}"


def _to_set_builder(found: dict[str, str | None]) -> str:
    """Write all numbers of a kind that meet a condition as a set builder."""
    letter, condition = found.get("letter") or "x", found.get("condition")
    domain = r"\mathbb{R}" if (found["kind"] or "").lower() == "real" else r"\mathbb{Z}"
    if condition is None:
        words = re.sub(r"\s+", " ", (found["bound"] or "").lower())
        sign = next(sign for start, sign in BOUNDS.items() if words.startswith(start))
        if words.endswith("equal to"):
            sign = {">": r"\ge ", "<": r"\le "}[sign]
        condition = f"{letter} {sign} {found['value']}"
    return rf"\{{{letter} \in {domain} \mid {condition.replace('$', '')}\}}"
