"""Splits an answer into parts: lists, brackets, chains of equations, and conditions after a formula."""

from __future__ import annotations

import re

from sgsd_lightning.verifiers.math.labels import is_assignment

OPENING = "([{"
CLOSING = ")]}"
RELATION = re.compile(r"[a-zA-Z]\s*(<|>|=|\\le|\\ge)(?![a-zA-Z])\s*([^<>=]+)")
SIDES = re.compile(r"(?<![<>!:\\])=(?!=)")
ORDER = r"(?:<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z]))"
CONDITION = re.compile(
    rf"(?:for\s+|if\s+|when\s+)?[a-zA-Z](?:_\w)?\s*(?:{ORDER}|\\in(?![a-zA-Z])).*|"
    rf"[^<>=\\a-zA-Z]+{ORDER}\s*[a-zA-Z]\s*(?:{ORDER}.*)?",
    re.DOTALL,
)
RESTRICTION = re.compile(rf"([a-zA-Z])\s*(?:{ORDER}|\\in(?![a-zA-Z]))(?:(?!{ORDER}).)+", re.DOTALL)
ALTERNATIVES = re.compile(
    r"[,;]?\s*(?:\\(?:text|mathrm)\s*\{\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:lor|vee)(?![a-zA-Z]))"
)
TOGETHER = re.compile(
    r"[,;]?\s*(?:\\(?:text|mathrm)\s*\{\s*(?:and|but)\s*\}|(?<![a-zA-Z\\])(?:and|but)(?![a-zA-Z])|\\(?:land|wedge)(?![a-zA-Z]))"
)
TUPLE_ASSIGNMENT = re.compile(r"\(\s*([a-zA-Z](?:\s*,\s*[a-zA-Z])+)\s*\)\s*=\s*\(([^()]*)\)")
FIRST_ITEM = re.compile(r"\(?[ai1A-Z]\)|[A-Z][.:]\s")
NEXT_ITEM = re.compile(r"(?<![,;\s])\s+(?=\(?(?:[b-h]|i{2,3}|iv|v|[2-9]|[A-Z])\)\s*\S|[A-Z][.:]\s+\S)")
AFTER_WORD = re.compile(rf"(.*\S)\s*,?\s*\b(?:for|if|when)\s+([a-zA-Z]\s*{ORDER}[^,;]*)", re.DOTALL)
IN_PARENTHESES = re.compile(rf"(.*\S)\s*\(\s*(?:for\s+|if\s+|when\s+)?([a-zA-Z]\s*{ORDER}[^()]*)\)", re.DOTALL)
LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")


def split_list(text: str) -> list[str]:
    r"""Split at top-level commas and semicolons, with ``a \pm b`` as two parts; one part if there are none."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth = max(0, depth - 1)
        elif character in ",;" and depth == 0 and not _is_in_number(text, position):
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [sign for part in parts if part.strip() for sign in _expand_signs(part.strip())]


def elements(text: str) -> list[str]:
    """Split a list, without the conditions on the formulas before them, and with chains such as m = n = 1 spread."""
    if match := TUPLE_ASSIGNMENT.fullmatch(text.strip()):
        return spread_assignment(match).split(", ")
    parts: list[str] = []
    if FIRST_ITEM.match(text):
        text = NEXT_ITEM.sub(", ", text)
    found = split_list(text)
    for part in found:
        if not (parts and _is_condition_of(part, parts[-1])):
            # of several values, a condition may say which is meant
            parts += spread_chain(without_condition(part) if len(found) == 1 else part)
    return parts


def without_condition(text: str) -> str:
    """Remove an inequality after a formula, in parentheses or after a word such as "for"."""
    match = IN_PARENTHESES.fullmatch(text) or AFTER_WORD.fullmatch(text)
    return match[1] if match else text


def spread_assignment(match: re.Match[str]) -> str:
    """Rewrite ``(x, y) = (1, 2)`` as ``x = 1, y = 2``."""
    names, values = match[1].split(","), match[2].split(",")
    if len(names) != len(values):
        return match[0]
    return ", ".join(f"{name.strip()} = {value.strip()}" for name, value in zip(names, values, strict=True))


def spread_chain(text: str) -> list[str]:
    """Rewrite ``m = n = 1`` as ``m = 1`` and ``n = 1``, and ``S = 2 * 3 = 6`` as ``S = 6``."""
    sides = [side.strip() for side in SIDES.split(text)]
    if len(sides) < 3 or not all(sides) or r"\ldots" in text:
        return [text]
    named = [is_assignment(side) for side in sides]
    if all(named[:-1]) and not named[-1]:
        return [f"{side} = {sides[-1]}" for side in sides[:-1]]
    if named[0] and not any(re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)) for side in sides[1:]):
        return [f"{sides[0]} = {sides[-1]}"]
    return [text]


def bracketed(text: str) -> tuple[str, list[str]] | None:
    r"""Return the brackets, such as ``(]``, and the elements of ``(1, 2]`` or ``\{1, 2\}``; None for anything else."""
    text = text.strip().replace(r"\{", "{").replace(r"\}", "}")
    if len(text) < 3 or text[0] not in OPENING or text[-1] not in CLOSING:
        return None
    depth = 0
    for position, character in enumerate(text):
        depth += (character in OPENING) - (character in CLOSING)
        if depth == 0 and position < len(text) - 1:
            return None
    return text[0] + text[-1], split_list(text[1:-1])


def as_union(relations: list[str]) -> str | None:
    r"""``x < 1``, ``x \ge 2`` becomes ``(-\infty, 1) \cup [2, \infty)``; None unless all parts are such relations."""
    intervals = []
    for relation in relations:
        match = RELATION.fullmatch(relation.strip())
        if match is None:
            return None
        sign, bound = match[1], match[2].strip()
        closing = {"<": ")", r"\le": "]"}.get(sign)
        opening = {">": "(", r"\ge": "["}.get(sign)
        if sign == "=":
            intervals.append(rf"\{{{bound}\}}")
            continue
        intervals.append(rf"(-\infty, {bound}{closing}" if closing else rf"{opening}{bound}, \infty)")
    return r" \cup ".join(intervals) if any("infty" in interval for interval in intervals) else None


def as_intersection(relations: list[str]) -> str | None:
    r"""``x \le 2``, ``x > -1`` becomes ``\{x \mid x \le 2, x > -1\}``; None unless all parts restrict one letter."""
    letters = {match[1] for part in relations if (match := RESTRICTION.fullmatch(part.strip()))}
    if len(letters) != 1 or not all(RESTRICTION.fullmatch(part.strip()) for part in relations):
        return None
    return rf"\{{{letters.pop()} \mid {', '.join(relations)}\}}"


def relations_as_set(text: str) -> str:
    """Rewrite relations joined by "or" as a union, and joined by "and" as an intersection; keep any other text."""
    for pattern, as_set in ((ALTERNATIVES, as_union), (TOGETHER, as_intersection)):
        parts = [part for part in pattern.split(text) if part.strip()]
        found = as_set(parts) if len(parts) > 1 else None
        if found:
            return found
    return text


def _is_condition_of(part: str, formula: str) -> bool:
    r"""Whether a part restricts a letter of the formula before it, as ``x > 0`` after ``x^2`` does."""
    if not CONDITION.fullmatch(part) or CONDITION.fullmatch(formula):
        return False
    restricted = set(LETTER.findall(re.sub(r"\\[a-zA-Z]+(?:\s*\{\s*[A-Z]\s*\})?", " ", part)))
    _, _, value = formula.rpartition("=")
    return bool(restricted & set(re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", " ", value))))


def _is_in_number(text: str, position: int) -> bool:
    """Whether a comma groups the digits of a number that is alone in its text up to a word or sign: ``1,000 + x``."""
    if text[position] != "," or text.count(",") != 1:
        return False
    return re.search(r"(?<!\d)[1-9]\d{0,2}$", text[:position]) is not None and (
        re.match(r"\d{3}(?!\d)", text[position + 1 :]) is not None
    )


def _expand_signs(text: str) -> list[str]:
    if r"\pm" not in text or text.startswith((r"\{", "{")):
        return [text]
    swapped = {r"\pm": "-", r"\mp": "+"}
    return [
        re.sub(r"\\(?:pm|mp)(?![a-zA-Z])", lambda sign: "+" if sign[0] == r"\pm" else "-", text).removeprefix("+"),
        re.sub(r"\\(?:pm|mp)(?![a-zA-Z])", lambda sign: swapped[sign[0]], text),
    ]
