"""One spelling for one value: what is cheap to unify before expressions are compared, and what math-verify lacks."""

from __future__ import annotations

import re
from fractions import Fraction

UNICODE = str.maketrans(
    {
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "−": "-", "–": "-", "≤": r"\le ", "≥": r"\ge ",
        "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "π": r"\pi ",
        "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "°": r"^\circ ", "²": "^2", "³": "^3", "⁴": "^4", "¹": "^1",
        "½": "1/2", "⅓": "1/3", "¼": "1/4", "ℤ": r"\mathbb{Z}", "ℝ": r"\mathbb{R}", "ℚ": r"\mathbb{Q}",
        "ℕ": r"\mathbb{N}", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "，": ",", "；": ";", "（": "(", "）": ")",
    }
)  # fmt: skip
SPELLINGS = (
    (r"\\(?:leqslant|leq|le)(?![a-z])", r"\\le "),
    (r"\\(?:geqslant|geq|ge)(?![a-z])", r"\\ge "),
    (r"\\(?:neq|ne)(?![a-z])", r"\\ne "),
    (r"\\[dtc]frac(?![a-z])", r"\\frac"),
    (r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|limits)(?![a-zA-Z])", ""),
    (r"\\[,;:! ]|\\(?:quad|qquad)(?![a-z])|~", " "),
    (r"\\(?:lbrace)(?![a-z])", r"\\{"),
    (r"\\(?:rbrace)(?![a-z])", r"\\}"),
    (r"\+\s*\\infty", r"\\infty"),
    (r"\{,\}", ""),
    (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
    (r"\\sqrt\s*(\d|[a-zA-Z])(?![a-zA-Z{])", r"\\sqrt{\1}"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
)
WRAPPERS = (
    re.compile(r"^\\\((.*)\\\)$", re.DOTALL),
    re.compile(r"^\\\[(.*)\\\]$", re.DOTALL),
    re.compile(r"^\$+([^$]*)\$+$"),
    re.compile(r"^\\(?:boxed|fbox|text|mathrm|textbf|mathbf)\{([^{}]*)\}$"),
)
UNITS = (
    r"(?:square|cubic|sq|cu)?\s*(?:[kcmd]?m|mm|km|cm|inch(?:es)?|in|feet|foot|ft|yards?|miles?|met(?:er|re)s?|"
    r"centimet(?:er|re)s?|kilomet(?:er|re)s?|units?|degrees?|radians?|rad|dollars?|cents?|euros?|pounds?|rubles?|"
    r"percent|seconds?|sec|minutes?|min|hours?|hrs?|days?|weeks?|months?|years?(?:\s+old)?|grams?|kg|g|mg|lit(?:er|re)s?|"
    r"mph|km/h|m/s|points?|people|students?|ways?|times?|sides?|coins?|balls?|cards?)"
)
UNIT_COMMAND = re.compile(
    r"\(?\\(?:text|mathrm|rm|textrm|mbox)\s*\{\s*([a-zA-Z./ ]*)\s*\}\s*(?:\^\s*\{?\s*-?\d\s*\}?)?\)?"
)
TRAILING_UNIT = re.compile(rf"(?<=[\d}})])\s*(?:{UNITS})(?:\s*\^\s*\{{?\d\}}?)?\.?\s*$", re.IGNORECASE)
EMPTY_UNIT = re.compile(r"\(\s*\\(?:text|mathrm)\s*\{\s*\}\s*\^\s*\{?\d\}?\s*\)|\(\s*\^\s*\{?\d\}?\s*\)")
CONJUNCTION = re.compile(
    r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?:and|or)\s*\}|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])|(?<=[\d)}])or(?=[a-zA-Z(]\s*[(=])"
)
QUALIFIER = re.compile(
    r"(?:,?\s*(?:\\text\s*\{\s*)?\b(?:with|where|for (?:all|any|every|some|each))\b.*|"
    r"\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\\in\s*(?:\\mathbb\s*\{?\s*[A-Z]\s*\}?|[A-Z])[^()]*\))$",
    re.DOTALL,
)
LABEL = re.compile(r"^\s*(?:[a-hA-H]\)|\([a-h]\)|\))\s*(?=\S)")
NAME = (
    r"(?:[A-Z]{1,2}\s*:\s*[A-Z]{1,2}"  # AB:BC
    r"|\\?[a-zA-Z]+(?:_\{?\w+\}?)?'?(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?"  # x, x_1, f(x, y)
    r"|\(\s*[a-zA-Z]?(?:\s*,\s*[a-zA-Z]?)*\s*\))"  # (x, y)
)
PREFIX = re.compile(rf"^\s*(?:(?:{NAME})?\s*(?:=|\\in(?![a-z]))|{NAME}\s+is(?![a-z]))\s*")
PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}[,:]?\s+(?:[a-zA-Z]+|\\\(|\$|\d)")
FUNCTION = re.compile(r"^\s*[a-zA-Z]\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\)\s*=")
FORMULA = re.compile(r"\\\((.+?)\\\)|\$([^$]+)\$")
TUPLE_ASSIGNMENT = re.compile(r"\(\s*([a-zA-Z](?:\s*,\s*[a-zA-Z])+)\s*\)\s*=\s*\(([^()]*)\)")
CHOICE = re.compile(r"^\(?\s*([A-J])\s*\)?\s*[.:]?$")
CHOICE_WITH_TEXT = re.compile(r"^(?:\(\s*([A-J])\s*\)|([A-J])[.):])\s*\S")
MONEY = re.compile(r"^\\?\$\s*(?=[\d.])")
NUMBER = re.compile(r"^([+-]?)(?:(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d*))?|\.(\d+))$")
FRACTION = re.compile(r"^([+-]?)(?:\\frac\{([+-]?\d+)\}\{(\d+)\}|(\d+)/(\d+))$")
MAX_LENGTH = 2000


def normalize(text: str) -> str:
    """The same value in a plainer spelling: wrappers, units, names, labels and typographic variants gone.

    Order and structure stay; nothing is evaluated.
    """
    text = unwrap(text.strip().translate(UNICODE))
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text)
    text = unwrap(MONEY.sub("", text.strip()).replace("$", " ").replace(r"\(", " ").replace(r"\)", " "))
    text = QUALIFIER.sub("", text.strip())
    text = CONJUNCTION.sub(",", text)
    text = EMPTY_UNIT.sub("", text)
    if re.search(r"\d", text):
        text = UNIT_COMMAND.sub(lambda match: " " if _is_unit(match[1]) else match[0], text)
    text = re.sub(r"\\?%|\^\s*\{?\s*\\circ\s*\}?|\\degree", "", text)
    if text.count("=") > 1:
        text = TUPLE_ASSIGNMENT.sub(_spread_assignment, text)
    choice = CHOICE.match(text)
    return choice[1] if choice else re.sub(r"\s+", " ", trim(text))


def trim(text: str) -> str:
    """One element of a list without the label before it and the unit after it."""
    return TRAILING_UNIT.sub("", LABEL.sub("", text.strip().rstrip(".;, "))).strip()


def value_of_sentence(text: str) -> str | None:
    """The only formula of a sentence, or else its only number; None for anything but such a sentence."""
    if PROSE.search(text) is None:
        return None
    formulas = [first or second for first, second in FORMULA.findall(text)]
    found = formulas or re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)", text)
    return found[0] if len(found) == 1 else None


def unwrap(text: str) -> str:
    r"""Without ``$...$``, ``\(...\)``, ``\text{...}`` and the like around the whole."""
    for _ in range(4):
        text = text.strip()
        inner = next((match[1] for wrapper in WRAPPERS if (match := wrapper.match(text))), None)
        if inner is None:
            return text
        text = inner
    return text


def strip_names(predicted: str, answer: str) -> tuple[str, str]:
    r"""``x = 5``, ``f(x) = 5``, ``(x, y) = (1, 2)`` and ``x \in S`` without what stands before the value.

    A function is not its value: ``f(x) = 0`` keeps its name against a bare ``0``, but not against ``g(x) = 0``.
    """
    values = PREFIX.sub("", predicted, count=1).strip(), PREFIX.sub("", answer, count=1).strip()
    are_functions = [FUNCTION.match(text) is not None for text in (predicted, answer)]
    if are_functions[0] != are_functions[1] and not re.search(r"[a-zA-Z]", values[are_functions.index(True)]):
        return predicted, answer
    return values


def split_list(text: str) -> list[str]:
    """The parts between top-level commas or semicolons; one part where there are none."""
    text = text.strip()
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character in ",;" and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def compact(text: str) -> str:
    """Without spaces and needless braces, and with ``;`` as ``,``: equal strings are equal values."""
    text = re.sub(r"\\([a-zA-Z]+) (?![a-zA-Z])", r"\\\1", text)
    text = re.sub(r"(?<!\\[a-z])(?<!\\[a-z]{2})\s+(?=\S)", "", text) if "\\" not in text else re.sub(r"\s+", " ", text)
    text = re.sub(r"\s*([-+*/=<>(),;^_{}\[\]|])\s*", r"\1", text.replace(";", ","))
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", text)


def choice_letter(text: str) -> str | None:
    """The letter of ``B``, ``(B)``, ``B. 12`` or ``(B) 12``; None for anything else."""
    text = unwrap(text)
    match = CHOICE.match(text) or CHOICE_WITH_TEXT.match(text)
    return next((group for group in match.groups() if group), None) if match else None


def exact_number(text: str) -> Fraction | None:
    """The value of an integer, decimal or simple fraction; None for anything else."""
    text = text.replace(" ", "").replace(r"\!", "")
    if len(text) > MAX_LENGTH:
        return None
    if match := NUMBER.match(text):
        sign, whole, decimals, bare = match.groups()
        digits = f"{(whole or '0').replace(',', '')}.{decimals or bare or '0'}"
        return Fraction(f"{sign}{digits}")
    if match := FRACTION.match(text):
        sign, top, bottom, plain_top, plain_bottom = match.groups()
        denominator = int(bottom or plain_bottom)
        return (
            None if denominator == 0 else Fraction(int(f"{top or plain_top}"), denominator) * (-1 if sign == "-" else 1)
        )
    return None


def is_damaged(text: str) -> bool:
    r"""Whether an expression lost some of its letters: ``\frac{100a}{100-}``, ``\frac{2}{1+^{2}}``."""
    return bool(re.search(r"(?:[{(+*/=-]|\\frac\{\})\s*\^|[-+*/]\s*[})]|\{\s*\}(?!\s*\^)|\}\s*\^\s*\{?\d\}?$", text))


def is_remainder(damaged: str, whole: str) -> bool:
    """Whether ``damaged`` is ``whole`` without some of its single letters, and with all of its digits and structure."""
    left, kept = _tokens(damaged), _tokens(whole)
    position = 0
    for token in kept:
        if position < len(left) and left[position] == token:
            position += 1
        elif not (len(token) == 1 and token.isalpha()):
            return False
    return position == len(left) and len(left) >= len(kept) // 2


def _tokens(text: str) -> list[str]:
    return re.findall(r"\\[a-zA-Z]+|\S", compact(text))


def _is_unit(words: str) -> bool:
    return not words.strip() or re.fullmatch(rf"{UNITS}\.?", words.strip(), re.IGNORECASE) is not None


def _spread_assignment(match: re.Match[str]) -> str:
    names, values = match[1].split(","), match[2].split(",")
    if len(names) != len(values):
        return match[0]
    return ", ".join(f"{name.strip()} = {value.strip()}" for name, value in zip(names, values, strict=True))
