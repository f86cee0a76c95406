r"""Damage that a text took on its way: LaTeX whose backslashes were read as escapes, and characters no text has.

``\frac`` between quotes that were not raw is a form feed and ``rac``; what strips or collapses white space makes
``rac`` of that. A model is then taught the damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

ESCAPED = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e"}
"""The letter that made this character of a backslash."""
REST = {
    "t": "anh|binom|ext(?:bf|it|md|normal|rm|sc|sf|style|tt|up)?|frac|herefore|heta|hickapprox|hicksim|hinspace|ilde|"
    "imes|riangle(?:down|left|right|lefteq|righteq|q)?|woheadrightarrow",
    "n": "abla|atural|earrow|eq(?!\\.)|eqq|ewcommand|ewline|exists|geq|geqslant|gtr|leftarrow|leq|leqslant|oindent|"
    "olimits|onumber|ormalsize|otag|otin|rightarrow|subseteq|supseteq|warrow",
    "r": "brace|brack|ceil|ef(?=\\{)|ight|ight(?:arrow|harpoonup)|oot(?=\\{)|ule(?=\\{)",
    "e": "ll|mptyset|nd|psilon|quiv|ta|xists",
}
"""Of the commands that begin with the letter, what is left when it is gone, where that is no word: a line or a cell of
a sound text does not begin with it."""
REST_IN_MATH = {"t": "ag|an|au|bf|o|op|t", "n": "cong|mid|parallel|prec|sim|succ", "r": "angle|floor|ho|m"}
"""The same where it may be a word or a name; within ``$…$`` it is none."""


def _pattern(rests: dict[str, str]) -> str:
    """One of the characters, and what is left of a command that it begins."""
    characters = {letter: re.escape(character) for character, letter in ESCAPED.items()}
    return "|".join(f"{characters[letter]}(?:{rest})(?![a-z])" for letter, rest in rests.items())


DAMAGED = re.compile(f"[\a\b\v\f][a-z]+|{_pattern(REST)}")
"""No sound text has one of the first four before a lower-case letter."""
DAMAGED_IN_MATH = re.compile(_pattern(REST_IN_MATH))
STRIPPED = re.compile(
    r"(?<![A-Za-z\\])(?:"
    r"(?P<t>ext(?:bf|it|rm|sc|sf|tt|up)?(?=\s*\{)|imes(?![a-z])|riangle(?![a-z])|heta(?![a-z]))|"
    r"(?P<f>rac(?=\s*\{|\d))|"
    r"(?P<b>oxed(?=\s*\{)|inom(?=\s*\{)|egin(?=\{)|ar(?=\{))|"
    r"(?P<v>arepsilon|arphi|ec(?=\{))|"
    r"(?P<a>lpha(?![a-z]))|"
    r"(?P<n>abla(?![a-z])(?=[^a-z]*\$))|"
    r"(?P<r>ightarrow|ight(?=\s*[)\]}|.\\]))"
    r")"
)
"""What is left where the character is gone too. None of it is a word."""
INLINE_MATH = re.compile(r"(?<!\\)\$(?!\$)([^$]*)\$")
NOT_OF_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters that are no white space, and those that turn the direction of what follows."""
NUM_LETTERS = 32
"""Of the longest command, and more."""
UNREADABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class LostBackslash:
    r"""A command of LaTeX without its backslash."""

    start: int
    """Where it begins, in characters."""
    found: str
    r"""As it stands: ``\x0crac`` or ``rac``."""
    meant: str
    r"""With the backslash: ``\frac``."""

    def __str__(self) -> str:
        return f"{self.found!r} for {self.meant}"


def lost_backslashes(text: str) -> list[LostBackslash]:
    """Every command of LaTeX in a text that lost its backslash, in order; none in a text that is sound.

    A line break or a tab before a word that is also what is left of a command (``an`` of ``tan``) counts only within a
    formula: a text may break its lines there.
    """
    damaged = [_damage(match, 0) for match in DAMAGED.finditer(text)]
    damaged += [_damage(match, start) for start, formula in _formulas(text) for match in _in_formula(formula)]
    after_escapes = {damage.start + 1 for damage in damaged}
    for match in STRIPPED.finditer(text):
        if match.start() not in after_escapes:
            damaged.append(LostBackslash(match.start(), match[0], f"\\{match.lastgroup}{match[0]}"))
    return sorted(damaged, key=lambda damage: damage.start)


def lost_in_formula(text: str) -> list[LostBackslash]:
    """The same for a text that is a formula, such as an answer."""
    return lost_backslashes(text) or [
        replace(damage, start=damage.start - 1) for damage in lost_backslashes(f"${text}$")
    ]


def restore_backslashes(text: str) -> str:
    """A text with the commands that :func:`lost_backslashes` finds as they were meant."""
    for damage in reversed(lost_backslashes(text)):
        text = text[: damage.start] + damage.meant + text[damage.start + len(damage.found) :]
    return text


def strip_spaces(text: str) -> str:
    r"""A text without the white space around it, but for what began a command: ``\f`` is white space to Python."""
    stripped = text.strip()
    before = text[: len(text) - len(text.lstrip())][-1:]
    return before + stripped if before and lost_in_formula(before + stripped[:NUM_LETTERS]) else stripped


def control_characters(text: str) -> list[str]:
    """Each control character of a text that is no white space, once, in order; also those that turn its direction."""
    return list(dict.fromkeys(NOT_OF_TEXT.findall(text)))


def unreadable_character(text: str) -> str | None:
    """Say what no tokenizer or file can take: the character NUL, or half of a surrogate pair; None for neither."""
    match = UNREADABLE.search(text)
    if match is None:
        return None
    return "the character NUL" if match[0] == "\0" else f"half of a surrogate pair ({match[0]!r})"


def _formulas(text: str) -> Iterator[tuple[int, str]]:
    """Where each formula within a paragraph begins, and what it is."""
    for match in INLINE_MATH.finditer(text):
        if "\n\n" not in match[1]:
            yield match.start(1), match[1]


def _in_formula(formula: str) -> Iterator[re.Match[str]]:
    for match in DAMAGED_IN_MATH.finditer(formula):
        # a formula that is set in lines of its own begins its lines with anything
        if match[0][0] != "\n" or formula[: match.start()].strip():
            yield match


def _damage(match: re.Match[str], offset: int) -> LostBackslash:
    return LostBackslash(offset + match.start(), match[0], f"\\{ESCAPED[match[0][0]]}{match[0][1:]}")
