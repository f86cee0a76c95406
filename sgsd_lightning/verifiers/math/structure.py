"""The parts of an answer: names before values, lists, brackets, and the one expression of a sentence."""

from __future__ import annotations

import re

OPENING = "([{"
CLOSING = ")]}"
SYMBOL = r"\\?[a-zA-Z]+(?:_\s*(?:\{[^{}]*\}|\w))?'?"
ARGUMENTS = r"\(\s*[a-zA-Z]?(?:\s*,\s*[a-zA-Z]?)*\s*\)"
NAME = (
    rf"(?:\\(?:text|mathrm|overline)\s*\{{[^{{}}]*\}}(?:_\s*(?:\{{[^{{}}]*\}}|\w))?|\\angle\s*[A-Z]+|[A-Z]+(?::[A-Z]+)+|"
    rf"{SYMBOL}(?:\s*{ARGUMENTS})?|{ARGUMENTS})"
)
PREFIX = re.compile(rf"({NAME})?\s*(=|\\in(?![a-zA-Z])|:(?=\s*\S)|(?<=[a-zA-Z])\s+is(?![a-zA-Z]))\s*")
FUNCTION = re.compile(rf"{SYMBOL}\s*\(\s*([a-z]\s*(?:,\s*[a-z]\s*)*)\)|[a-zA-Z]_(?:\{{([ijkmn])\}}|([ijkmn]))")
LABEL = re.compile(r"(?:\(?[a-h]|\(?[ivx]+)?\)\s*(?=\S)")
RELATION = re.compile(r"[a-zA-Z]\s*(<|>|\\le|\\ge)(?![a-zA-Z])\s*([^<>=]+)")
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


def split_name(text: str) -> tuple[str | None, str]:
    r"""The name and the value of ``x = 5``, ``f(x) = 5``, ``(x, y) = (1, 2)``, ``x \in S`` or ``b) 5``.

    A name is lower case, without subscript and arguments; None where it is no lone symbol, or missing.
    """
    text = text.strip()
    if (label := LABEL.match(text)) and text.count("(") < text.count(")") + (label[0][0] == "("):
        text = text[label.end() :]
    match = PREFIX.match(text)
    if match is None or match.end() == len(text) or (match[2] == ":" and len(match[1] or "") < 2):
        return None, text
    value = text[match.end() :].strip()
    if match[2] in (":", " is") or match[2].strip() == "is":
        return None, value
    symbol = re.match(r"\\?[a-zA-Z]+", match[1] or "")
    is_lone = symbol is not None and (len(symbol[0]) == 1 or symbol[0].startswith("\\"))
    name = symbol[0].lower() if symbol and is_lone else None
    return name, text if _is_constant(match[1] or "", value) else value


def split_list(text: str) -> list[str]:
    r"""The parts between top-level commas or semicolons, with ``a \pm b`` as two; one part where there are none."""
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
    return [sign for part in parts if part.strip() for sign in _both_signs(part.strip())]


def bracketed(text: str) -> tuple[str, list[str]] | None:
    r"""The kind, such as ``(]``, and the elements of ``(1, 2]`` or ``\{1, 2\}``; None for anything else."""
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
    r"""``x < 1``, ``x \ge 2`` as ``(-\infty, 1) \cup [2, \infty)``; None unless all parts are such relations."""
    intervals = []
    for relation in relations:
        match = RELATION.fullmatch(relation.strip())
        if match is None:
            return None
        sign, bound = match[1], match[2].strip()
        closing = {"<": ")", r"\le": "]"}.get(sign)
        opening = {">": "(", r"\ge": "["}.get(sign)
        intervals.append(rf"(-\infty, {bound}{closing}" if closing else rf"{opening}{bound}, \infty)")
    return r" \cup ".join(intervals)


def only_expression(text: str) -> str | None:
    """The formula or number of a sentence that has exactly one, and neither denies nor counts in words; else None."""
    if VERDICT.fullmatch(text.strip()):
        return text.strip().split()[0].strip(",.:;!-")
    head, _, conclusion = text.rpartition("i.e.")
    if head:
        return conclusion.strip(" ,.") or None
    formulas = [next(group for group in match.groups() if group) for match in FORMULA.finditer(text)]
    words = FORMULA.sub(" ", text)
    if len(re.findall(r"(?<![\\\w])[a-zA-Z]{2,}", words)) < MIN_WORDS:
        return None
    if NEGATION.search(words.lower()) or NUMERALS.search(words.lower()):
        return None
    if formulas:
        return formulas[0] if len(formulas) == 1 and not re.search(r"\d", words) else None
    numbers = NUMBER_WORD.findall(text)
    is_plain = len(re.findall(r"\d+(?:[.,]\d+)*", text)) == 1 and not re.search(r"[\\=^_+*/<>]", text)
    return numbers[0] if len(numbers) == 1 and is_plain else None


def _is_constant(name: str, value: str) -> bool:
    """Whether ``f(x) = value`` or ``a_n = value`` is a constant function or sequence, which its value alone is not."""
    match = FUNCTION.fullmatch(name)
    if match is None:
        return False
    indices = re.findall("[a-z]", next(group for group in match.groups() if group))
    return not set(indices) & set(re.sub(r"\\[a-zA-Z]+", " ", value))


def _is_in_number(text: str, position: int) -> bool:
    """Whether a comma groups the digits of a number that is alone in its text up to a word or sign: ``1,000 + x``."""
    if text[position] != "," or text.count(",") != 1:
        return False
    return re.search(r"(?<!\d)[1-9]\d{0,2}$", text[:position]) is not None and (
        re.match(r"\d{3}(?!\d)", text[position + 1 :]) is not None
    )


def _both_signs(text: str) -> list[str]:
    if r"\pm" not in text:
        return [text]
    swapped = {r"\pm": "-", r"\mp": "+"}
    return [
        re.sub(r"\\(?:pm|mp)(?![a-zA-Z])", lambda sign: "+" if sign[0] == r"\pm" else "-", text).removeprefix("+"),
        re.sub(r"\\(?:pm|mp)(?![a-zA-Z])", lambda sign: swapped[sign[0]], text),
    ]
