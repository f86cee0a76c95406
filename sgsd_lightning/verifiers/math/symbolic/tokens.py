"""LaTeX and keyboard mathematics cut into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgsd_lightning.verifiers.math.exact_numbers import exact_number
from sgsd_lightning.verifiers.math.listed import listed
from sgsd_lightning.verifiers.math.symbolic.nodes import Node, number

FUNCTIONS = {
    **{
        name: name
        for name in listed(
            "sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh asinh acosh atanh "
            "ln lg exp sqrt cbrt abs floor ceil sgn gcd lcm max min"
)
    },
    "tg": "tan", "ctg": "cot", "cosec": "csc", "cth": "coth", "sh": "sinh", "ch": "cosh", "th": "tanh", "log": "log",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "arctg": "atan", "arcctg": "acot", "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "sign": "sgn",
    "ceiling": "ceil",
}  # fmt: skip
"""What names are typed for, after a backslash or without one."""
GREEK = frozenset(
    listed(
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
        "sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega "
        "ell hbar"
    )
)
STYLES = frozenset(
    listed(
        "mathrm mathbf mathit mathsf mathcal boldsymbol bm text textbf textit textrm mbox rm operatorname vec "
        "overrightarrow bar hat tilde overline underline"
    )
)
SIGNS = {
    r"\cdot": "*", r"\times": "*", r"\div": "/", r"\colon": ":", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\lt": "<",
    r"\gt": ">", r"\in": "in", r"\equiv": "equiv", r"\mid": "|", r"\vert": "|", r"\lvert": "|", r"\rvert": "|",
    r"\land": ",", r"\wedge": ",", r"\cup": "cup", r"\cap": "cap", r"\setminus": "setminus", r"\backslash": "setminus",
    r"\degree": "degree", r"\{": "{{", r"\}": "}}", r"\%": "%", r"\lbrack": "[", r"\rbrack": "]", r"\bmod": "mod",
    r"\notin": "notin", ";": ",", r"\infin": r"\infty", r"\approx": "~", r"\sim": "~", r"\cong": "~", r"\|": "||",
}  # fmt: skip
TOKEN = re.compile(
    r"(?P<degree>\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\^?\s*°)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:\\overline\s*\{\d+\}|(?:\\dot\s*\{?\d\}?\d*)+|(?<=\d)\s*(?:\\ldots|\.\.\.))?"
    r"(?:[eE][+-]?\d+(?![\w.]))?)"
    r"|(?P<command>\\[a-zA-Z]+)|(?P<escaped>\\\\|\\[{}%|])"
    r"|(?P<word>[a-zA-Z]+)|(?P<sign><=|>=|!=|[-+*/^_!%|=<>,;:()\[\]{}&'])|(?P<space>\s+)",
)
TYPED = sorted({*FUNCTIONS, "pi", "mod", "choose"} - {"sh", "ch", "th"}, key=len, reverse=True)
"""Names that need no backslash, longest first."""


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: number, symbol, function, constant, command or the sign itself; ``after_space``: a space precedes."""

    kind: str
    text: str
    after_space: bool = False
    leaf: Node | None = None


class NotRead(ValueError):
    """Text that this grammar has no reading for."""


def tokenize(text: str) -> list[Token]:
    """The tokens of a normalised text.

    Raises:
        NotRead: at a character or number that is none.
    """
    tokens: list[Token] = []
    position, after_space = 0, False
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise NotRead(f"at {text[position : position + 10]!r}")
        position = match.end()
        kind, spelling = match.lastgroup, match[0]
        if kind == "space":
            after_space = True
            continue
        tokens += _word(spelling, after_space) if kind == "word" else [_token(kind or "", spelling, after_space)]
        after_space = False
    return tokens


def _token(kind: str, spelling: str, after_space: bool) -> Token:
    if kind == "number":
        value = exact_number(spelling)
        if value is None:
            raise NotRead(f"the number {spelling!r}")
        return Token("number", spelling, after_space, number(value))
    if kind == "degree":
        return Token("degree", spelling, after_space)
    if kind == "command":
        return _command(spelling, after_space)
    sign = SIGNS.get(spelling, spelling)
    return Token(sign, spelling, after_space)


def _command(spelling: str, after_space: bool) -> Token:
    name = spelling[1:]
    if name in FUNCTIONS and name != "sqrt":
        return Token("function", FUNCTIONS[name], after_space)
    if name in GREEK:
        return Token("symbol", spelling, after_space)
    if name == "pi":
        return Token("constant", "pi", after_space)
    if name in ("infty", "infin"):
        return Token("constant", "infinity", after_space)
    if name in ("imath", "jmath"):
        return Token("constant", "i", after_space)
    if name in STYLES:
        return Token("style", name, after_space)
    return Token(SIGNS.get(spelling, spelling), spelling, after_space)


def _word(spelling: str, after_space: bool) -> list[Token]:
    """A run of letters: functions typed without a backslash, and symbols of a letter each."""
    tokens: list[Token] = []
    while spelling:
        name = next((name for name in TYPED if spelling.startswith(name)), None)
        if name is not None and len(spelling) > len(name) + 1 and name not in ("sqrt", "exp"):
            name = name if spelling[len(name) :] in FUNCTIONS or len(name) > 2 else None
        if name == "pi":
            tokens.append(Token("constant", "pi", after_space))
        elif name in ("mod", "choose"):
            tokens.append(Token(name if name == "mod" else r"\choose", name, after_space))
        elif name is not None:
            tokens.append(Token("function", FUNCTIONS[name], after_space))
        else:
            name = spelling[0]
            tokens.append(Token("constant" if name in "ei" else "symbol", name, after_space))
        spelling, after_space = spelling[len(name) :], False
    return tokens
