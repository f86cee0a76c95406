"""Normalises spellings before expressions are compared: cheap rewrites, and those that math-verify lacks.

Order and structure stay, and nothing is evaluated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from sgsd_lightning.verifiers.math.listed import listed
from sgsd_lightning.verifiers.math.structure import TUPLE_ASSIGNMENT, relations_as_set, spread_assignment
from sgsd_lightning.verifiers.math.words import in_symbols

MAX_LENGTH = 2000
UNICODE = str.maketrans(
    {
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "−": "-", "–": "-", "⁄": "/", "±": r"\pm ",
        "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∖": r"\setminus ", "∠": r"\angle ",
        "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ",
        "φ": r"\phi ", "ω": r"\omega ", "°": r"^\circ ", "ℤ": r"\mathbb{Z}", "ℝ": r"\mathbb{R}",
        "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4",
        "…": r"\ldots ", "〈": "(", "〉": ")", "⟨": "(", "⟩": ")", "“": '"', "”": '"', "’": "'",
    }
)  # fmt: skip
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
BASES = {name: str(base) for base, name in enumerate(listed("two three four five six seven eight nine ten"), start=2)}


def _base(match: re.Match[str]) -> str:
    return f"_{{{BASES[match[1]]}}}"


SPELLINGS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:leqslant|leq|le)(?![a-zA-Z])\s*|<=", r"\\le "),
        (r"\\(?:geqslant|geq|ge)(?![a-zA-Z])\s*|>=", r"\\ge "),
        (r"\\(?:neq|ne)(?![a-zA-Z])\s*|!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|limits)(?![a-zA-Z])\.?", ""),
        (r"\\!|\{,\}(?=\d{3})", lambda match: "," if match[0] != r"\!" else ""),
        (r"(?<!\\)\\[,;:> ]|\\(?:quad|qquad)(?![a-zA-Z])|~", " "),
        (r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"),
        (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:dots|cdots|dotsc)(?![a-zA-Z])", r"\\ldots"),
        (r"\\(?:middle)(?![a-zA-Z])", ""),
        (r"\+\s*\\infty", r"\\infty"),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))", r"\\times "),
        (r"_\s*\{\s*(?:\\(?:text|mathrm|textrm)\s*\{)?\s*(" + "|".join(BASES) + r")\s*\}?\s*\}", _base),
        (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\d|[a-zA-Z])(?![a-zA-Z{])", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(?<![\\a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi"),
        (r"(?<=\w)\*\*(?=[\w({-])", "^"),
        (r"(?<![\d.])\.(?=\d)", "0."),
    )
)
WRAPPERS = (
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
    re.compile(r"\$+([^$]+)\$+"),
    re.compile(r"\*\*([^*]+)\*\*"),
    re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"),
)
CONJUNCTION = re.compile(
    r"[,;]?\s*\\(?:text|mathrm|textrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])[,;]?\s*(?:and|or)(?![a-zA-Z])|"
    r"(?<=[\d)}])or(?=-?[\d\\(]|[a-zA-Z]\s*[(=])"
)
QUALIFIER = re.compile(
    r",?\s*(?:\\(?:text|mathrm)\s*\{\s*)?\b(?:with|where|for (?:all|any|every|some|each))\b.*|"
    r"(?<=\S)\s*[,;]\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\\in\s*\\mathbb\s*\{?\s*[A-Z]\s*\}?(?:[_^]\{?[+*]\}?)?$|"
    r"\s*\(\s*(?:for\s+)?[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\\in\s*(?:\\mathbb\s*\{?\s*[A-Z]\s*\}?|[A-Z])[^()]*\)$",
    re.DOTALL,
)
TEXT_COMMAND = re.compile(r"\\(?:text|textrm|textbf|mbox|mathrm)\s*\{([^{}]*)\}")
CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?\s*[.:]?")
CHOICE_WITH_TEXT = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])(?:\)|\.(?!\s*[a-z]+$)))\s*(\S.*)", re.DOTALL)
"""``A: 5`` labels a value, and ``E. coli`` shortens a name."""
NEXT_CHOICE = re.compile(r"(?:\(\s*[A-J]\s*\)|(?<![\w\\(])[A-J][.):])\s*\S")
COMMAND = re.compile(r"\\[a-zA-Z]+")
WORD = re.compile(r"[^\W\d_]{4,}")
FUNCTIONS = frozenset(
    listed(
        "sinh cosh tanh arcsin arccos arctan arccot arcctg arctg asin acos atan sqrt cbrt floor ceil infty "
        "matrix pmatrix bmatrix vmatrix array cases choose"
    )
)
SEVERAL_CHOICES = re.compile(r"[A-H](?:\s*(?:,|;|and)\s*[A-H])+|[A-H]{2,8}")
GROUPED = re.compile(
    r"(?<![\d,.(\[])(?<!\\\{)[1-9]\d{0,2}(?:,\d{3}){2,}(?!\d|,\d|\s*[)\]]|\s*\\\})|"
    r"(?<![\d.])[1-9]\d{0,2}(?: \d{3})+(?![\d/])"
)
ONE_GROUP = re.compile(r"(?<![\d,.])[1-9]\d{0,2},\d{3}(?!\d|,\d)")
REVERSED = (
    (re.compile(r"(?<![\w)}\]])\]([^\[\](){}]+[,;](?:[^\[\]()]|\([^()]*\))+)\["), r"(\1)"),
    (re.compile(r"(?<![\w)}\]])\]([^\[\](){}]+[,;](?:[^\[\]()]|\([^()]*\))+)\]"), r"(\1]"),
    (re.compile(r"\[([^\[\](){}]+[,;](?:[^\[\]()]|\([^()]*\))+)\["), r"[\1)"),
)
PARAMETRIC = re.compile(
    r"^\\\{\s*((?:[^{}|]|\{[^{}]*\})*[^{}|\s][^{}|]*?)\s*(?:\\mid|\|)\s*[kmn]\s*\\in\s*\\mathbb\s*\{?Z\}?\s*\\\}$"
)
"""A set of the values of a formula for all integers, which the formula says too."""
APPROXIMATE = re.compile(
    r"^(?:\\text\s*\{\s*)?(?:about|approximately|approx\.?|roughly|exactly|nearly)\s*\}?(?![a-zA-Z])\s*|^\\approx\s*",
    re.IGNORECASE,
)
ALIGNED = re.compile(r"\\(?:begin|end)\s*\{(?:aligned|align\*?|array|cases|gathered)\}(?:\{[lcr]*\})?")


def normalize(text: str) -> str:
    """Rewrite a text more plainly: without wrappers, qualifiers and typographic variants, ``and`` as a comma."""
    text = unwrap(_plain_characters(text))
    text = re.sub(r"\\?\$\s*(?=[\d.])", "€€", text).replace("$", " ").replace("€€", r"\$")
    text = _join_lines(text)
    for pattern, replacement in SPELLINGS:
        text = pattern.sub(replacement, text)
    text = in_symbols(unwrap(text.replace(r"\(", " ").replace(r"\)", " ")))
    for pattern, replacement in REVERSED:
        text = pattern.sub(replacement, text)
    text = PARAMETRIC.sub(r"\1", text)
    text = QUALIFIER.sub("", text)
    text = ungroup(CONJUNCTION.sub(", ", relations_as_set(APPROXIMATE.sub("", text.strip(" .")))))
    if text.count("=") > 1:
        text = TUPLE_ASSIGNMENT.sub(spread_assignment, text)
    return re.sub(r"\s+", " ", text).strip(" .;,:")


def ungroup(text: str) -> str:
    """Remove thousands separators, unless the text may be a list.

    Several separators without spaces group digits; a single one does if the other parts are separated by spaces.
    """
    if text[:1] not in tuple("([{") and not text.startswith(r"\{") and re.search(r"[,;]\s", text):
        text = ONE_GROUP.sub(lambda match: match[0].replace(",", ""), text)
    if re.fullmatch(r"[\d,]*|[\d ]*", text):
        return text
    return GROUPED.sub(lambda match: re.sub("[, ]", "", match[0]), text)


def choices(text: str) -> frozenset[str] | None:
    """Return the letters of ``A, C`` or ``AC``; None for any other text."""
    text = unwrap(TEXT_COMMAND.sub(r"\1", unwrap(text)))
    letters = re.findall("[A-H]", text) if SEVERAL_CHOICES.fullmatch(text) else []
    return frozenset(letters) if letters and len(set(letters)) == len(letters) else None


def _join_lines(text: str) -> str:
    """Join aligned lines into a list; a chain of equations or relations written downwards is one chain."""
    if not ALIGNED.search(text):
        return text
    lines = [line.replace("&", " ").strip() for line in ALIGNED.sub(" ", text).split(r"\\")]
    joined = ""
    for line in filter(None, lines):
        continues = re.match(r"=|<|>|\\(?:le|ge|leq|geq)(?![a-zA-Z])", line)
        joined += (" " if continues or not joined else ", ") + line
    return joined.strip()


def unwrap(text: str) -> str:
    r"""Remove ``$...$``, ``\(...\)``, ``\text{...}`` and the like around the whole text, and a full stop."""
    for _ in range(4):
        text = text.strip().removesuffix(".").strip()
        inner = next((match[1] for wrapper in WRAPPERS if (match := wrapper.fullmatch(text))), None)
        if inner is None or r"\(" in inner or r"\[" in inner:
            return text
        text = inner
    return text


def compact(text: str) -> str:
    """Remove needless spaces and braces, and write ``;`` as ``,``: equal results are equal values."""
    text = re.sub(r"\s*([-+*/=<>(),_^{}\[\]|:!])\s*", r"\1", text.replace(";", ","))
    text = re.sub(r"(\\[a-zA-Z]+) (?![a-zA-Z])", r"\1", text)
    text = re.sub(r"(?<=\d) (?=[a-zA-Z\\])|(?<![a-zA-Z]) (?=\\)", "", text)
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", text)


def is_same_text(text: str, other: str) -> bool:
    """Whether two normalised texts are equal up to spaces, and up to case in words (not in symbols)."""
    text, other = compact(text), compact(other)
    if text == other:
        return bool(text)
    if not (has_words(text) or _is_word(text)) or text.casefold() != other.casefold():
        return False
    return "\\" not in text


def has_words(text: str) -> bool:
    r"""Whether a text has a word: four letters in a row that are no function's name and no command.

    math-verify reads a word as the product of its letters, so that "listen" equals "silent".
    """
    return any(word.lower() not in FUNCTIONS for word in WORD.findall(COMMAND.sub(" ", text))) or any(
        len(words.strip()) > 3 for words in TEXT_COMMAND.findall(text)
    )


def choice(text: str) -> tuple[str | None, str]:
    """Return the letter of ``B``, ``(B)``, ``B. 12`` or ``(B) 12``, or None, and the text that follows it.

    A text with a second such letter is a list of labelled values, not a choice.
    """
    text = unwrap(TEXT_COMMAND.sub(r"\1", unwrap(text)))
    if match := CHOICE.fullmatch(text):
        return match[1], ""
    if (match := CHOICE_WITH_TEXT.fullmatch(text)) and not NEXT_CHOICE.search(match[3]):
        return match[1] or match[2], match[3]
    return None, text


def _plain_characters(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda run: f"^{{{run[0].translate(SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda run: f"_{{{run[0].translate(SUBSCRIPTS)}}}", text)
    return unicodedata.normalize("NFKC", text.translate(UNICODE))


def _is_word(text: str) -> bool:
    return text.casefold() in ("yes", "no", "odd")
