r"""Labels before values: ``x = 5``, ``\angle A = 50^\circ``, ``Tom: 5``, ``(a) 5``, ``A(3, -1)``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgsd_lightning.verifiers.math.listed import listed
from sgsd_lightning.verifiers.math.sentences import NEGATION, NUMERALS

LETTER = r"(?:\\[a-zA-Z]+|(?!(?:[a-d]{3,}|[p-z]{3,})(?![a-z]))[a-z]{3,}|[A-Z]{2,5}|[a-zA-Z](?![a-z]))"
SYMBOL = LETTER + r"(?:_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\w))?'*"
NESTED = r"\((?:[^()=<>]|\([^()=<>]*\))*\)"
LETTERS = r"\(\s*[a-zA-Z]?(?:\s*,\s*[a-zA-Z]?)*\s*\)"
SEGMENT = r"(?:[A-Z]'?(?:_\w)?){1,3}"
FRACTION_PART = r"\s*(?:[A-Z]+|[a-zA-Z](?:_\w|_\{\w+\})?)\s*"
FUNCTION_LETTER = r"[a-hpquvEFGHPQTV](?:_\w|_\{\w+\})?'*"
NAME = (
    rf"(?:m?\s*\\(?:angle|triangle|measuredangle|widehat|overset)\s*[A-Z{{}}]*|"
    rf"\\(?:text|mathrm|mathit|operatorname|overline|overrightarrow|vec|hat|bar)\s*\{{[^{{}}]*\}}"
    rf"(?:_\s*(?:\{{[^{{}}]*\}}|\w))?(?:\s*{NESTED})?|"
    rf"{SYMBOL}(?:\s*:\s*{SYMBOL}){{1,3}}|"
    rf"\|\s*(?:[A-Z]{{1,2}}'?|z(?:_\w)?|\\(?:vec|overrightarrow|mathbf|overline)\s*\{{[^{{}}]*\}})\s*\||"
    rf"\\frac\s*\{{{FRACTION_PART}\}}\s*\{{{FRACTION_PART}\}}|{SEGMENT}\s*/\s*{SEGMENT}|[a-z]\s*/\s*[a-z]|"
    rf"\\(?:sin|cos|tan|cot|sec|csc|max|min|lim|gcd|lcm|int|sum)(?![a-zA-Z])[^=<>]*|"
    rf"(?:sin|cos|tan|cot)\s*\(?\s*{SYMBOL}\s*\)?|"
    rf"{FUNCTION_LETTER}\s*{NESTED}|n\s*\([^()=]*[A-Z][^()=]*\)|{SYMBOL}(?:\s*{LETTERS})?|{LETTERS})"
)
ASSIGNED = re.compile(rf"({NAME})\s*(=|\\in(?![a-zA-Z]))\s*(?=\S)")
BARE_SIGN = re.compile(r"\s*(?:=|\\in(?![a-zA-Z])|:(?!\s*\d+\s*$))\s*(?=\S)")
VALUE_START = r"(?=-?[\d.$(]|-?\\(?!c[au]p|setminus|in|cdot|times|[lg]e)[a-zA-Z({]|[a-zA-Z])"
ITEM = re.compile(
    r"(?:\(\s*([a-h]|[ivx]+|\d)\s*\)\s+|\(([a-h]|[ivx]{1,4})\)\s*(?=[\d\\-])|([a-h]|[ivx]+|\d)?\)\s*)(?=\S)"
)
CAPITAL_ITEM = re.compile(
    rf"(?:\(\s*([A-Z])\s*\)(?:\s+|(?=-?\d))|([A-Z])(?:\)\s*|\.\s+|\s*:\s*(?![A-Z]|[a-z]\s*:))){VALUE_START}"
)
"""``A: 5``, but not the ratio ``A:B``."""
WORDS = r"(?:\\(?:text|mathrm)\s*\{\s*)?([a-zA-Z][\w'-]*(?:\s+[\w'-]+){0,3})\s*\}?"
TITLED = re.compile(rf"{WORDS}\s*(?::|(?<=[a-z][a-z][a-z])=|(?<=[a-z][a-z]\}})=|(?<=[a-z][a-z]\s)=)\s*(?=\S)")
SAID = re.compile(r"([A-Z][\w'-]*)\s+(?:is|has|have|gets|got|are|was|had)\s+(?=\S)")
STATED = re.compile(r"(.*?[a-zA-Z])\s+(?:is|are|equals)\s+(?=\S)", re.DOTALL)
LEADING = re.compile(r"([a-zA-Z]{3,}(?:\s+[a-zA-Z]+){0,2})\s+(?=[-+]?[\d(\\$])")
STATED_IN_TEXT = re.compile(r"\\text\s*\{[^{}]*\b(?:is|are|equals|be)\s*:?\s*\}\s*(?=\S)")
COORDINATES = re.compile(r"([A-Z]'?(?:_\w|_\{\w+\})?)\s*(\((?:[^()]|\([^()]*\))*[,;](?:[^()]|\([^()]*\))*\))")
FUNCTION = re.compile(rf"{SYMBOL}\s*\(\s*([a-z]\s*(?:,\s*[a-z]\s*)*)\)|[a-zA-Z]_(?:\{{([ijkmn])\}}|([ijkmn]))")
INDEXED = re.compile(r"\\?([a-zA-Z]+)(?:_\{?(\w+)\}?)?")
CHANGES = re.compile(
    NEGATION.pattern + "|" + NUMERALS.pattern + r"|\b(?:sin|cos|tan|cot|log|exp|sqrt|least|most|than|over|under)\b"
)
MAX_WORDS = 4
GENERIC = frozenset(
    listed(
        "it this that which there answer value result solution total number sum thus so hence therefore final "
        "answers values exactly equal equals"
    )
)


@dataclass(frozen=True, slots=True)
class Label:
    """``kind``: symbol, word, item or noun; labels of different kinds cannot contradict each other."""

    kind: str
    text: str

    def agrees(self, other: Label) -> bool:
        """Whether both may name the same thing: ``x`` and ``x_1`` do, ``x_1`` and ``x_2`` do not."""
        if self.text == other.text or self.kind != other.kind:
            return self.kind == other.kind
        if self.kind == "word":
            return self.text.casefold() == other.text.casefold()
        if self.kind != "symbol":
            return False
        bases = self.base, other.base
        if bases[0] == bases[1]:
            return self.text == bases[0] or other.text == bases[1] or (self.is_function and other.is_function)
        return bases[0].casefold() == bases[1].casefold() and self.is_function and other.is_function

    @property
    def base(self) -> str:
        """The symbol without subscript, arguments and primes; all of a longer left side."""
        match = re.fullmatch(r"(\\?[a-zA-Z]+)(?:_(?:\{[^{}]*\}|\w))?'*(?:\(.*\))?", self.text)
        return match[1] if match and (len(match[1]) == 1 or match[1].startswith("\\")) else self.text

    @property
    def is_function(self) -> bool:
        """Whether it is ``f(x)``, a function of letters."""
        return FUNCTION.fullmatch(self.text) is not None


def split_label(text: str) -> tuple[Label | None, str]:
    r"""Split one element into label and value; the label is None if there is none, or an uninformative one.

    A constant function or sequence keeps its left side, because ``f(x) = 0`` is not the value 0.
    """
    text = text.strip()
    item = _item(text)
    if item is not None:
        label, rest = item
        return label, split_label(rest)[1]
    if (match := ASSIGNED.match(text)) and match[1].count("{") == match[1].count("}"):
        value = text[match.end() :].strip()
        name = match[1].strip()
        return _named(name), text if _is_constant(name, value) else value
    if match := COORDINATES.fullmatch(text):
        return Label("symbol", match[1]), match[2]
    if match := BARE_SIGN.match(text):
        return None, text[match.end() :].strip()
    return _in_words(text)


def is_assignment(text: str) -> bool:
    """Whether a text may name a value, as the left side of ``=`` does."""
    return ASSIGNED.fullmatch(text.strip() + "=", endpos=len(text.strip()) + 1) is not None or _is_name(text)


def _is_name(text: str) -> bool:
    return re.fullmatch(NAME, text.strip()) is not None


def _item(text: str) -> tuple[Label, str] | None:
    match = ITEM.match(text) or CAPITAL_ITEM.match(text)
    if match is None:
        return None
    mark = next((mark for mark in match.groups() if mark), "")
    is_open = match[0].lstrip().startswith("(") or not match[0].rstrip().endswith(")")
    if not is_open and text.count("(") >= text.count(")"):
        return None
    return Label("item", mark), text[match.end() :]


def _named(name: str) -> Label | None:
    words = re.fullmatch(r"\\(?:text|mathrm|mathit)\s*\{([^{}]*)\}|([a-z]{3,})", name)
    if words and not name.startswith("\\mathrm{~"):
        return _word((words[1] or words[2]).strip())
    compact = re.sub(r"\s+", "", name)
    if re.fullmatch(LETTERS, name) or not compact:
        return None
    return Label("symbol", re.sub(r"_\{(\w)\}", r"_\1", compact))


def _word(text: str) -> Label | None:
    words = [word for word in text.lower().split() if word not in ("the", "of", "a", "an")]
    return None if not words or GENERIC.intersection(words) else Label("word", " ".join(words))


def _in_words(text: str) -> tuple[Label | None, str]:
    if match := SAID.match(text):
        return _word(match[1]), text[match.end() :].strip()
    if (match := TITLED.match(text)) and not re.fullmatch(r"[a-zA-Z]|[A-Z]{2}|[a-z]{2}|[p-z]+", match[1]):
        return _word(match[1]), text[match.end() :].strip()
    if match := STATED_IN_TEXT.match(text):
        return None, text[match.end() :].strip()
    if (match := STATED.match(text) or LEADING.match(text)) and not CHANGES.search(match[1].lower()):
        is_short = re.fullmatch(r"[a-zA-Z' -]+", match[1]) and len(match[1].split()) <= MAX_WORDS
        return _word(match[1]) if is_short else None, text[match.end() :].strip()
    return None, text


def _is_constant(name: str, value: str) -> bool:
    """Whether ``f(x) = value`` or ``a_n = value`` is a constant function or sequence, which its value alone is not."""
    match = FUNCTION.fullmatch(name)
    if match is None:
        return False
    indices = re.findall("[a-z]", next(group for group in match.groups() if group))
    return not set(indices) & set(re.sub(r"\\[a-zA-Z]+", " ", value))
