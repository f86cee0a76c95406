r"""Published answers that lost letters in conversion: ``\frac{100a}{100-}`` for ``\frac{100a}{100-a}``.

Large public problem sets have such answers, because a converter dropped single letters. A prediction is right if it
is the published answer with letters in the gaps.
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"\\[a-zA-Z]+|\S")
OPENING = frozenset("{([")
CLOSING = frozenset("})]")
OPERATORS = frozenset("+-*/=")


def completes(predicted: str, answer: str) -> bool:
    """Whether ``answer`` lacks operands and ``predicted`` is ``answer`` with a letter in each of the gaps.

    Elsewhere ``predicted`` may have more letters only where they are among those that fill the gaps.
    """
    damaged, whole = TOKEN.findall(answer), TOKEN.findall(predicted)
    in_gaps: set[str] = set()
    elsewhere: set[str] = set()
    read = 0
    for position in range(len(damaged) + 1):
        if _is_gap(damaged, position):
            if read == len(whole) or not _is_letter(whole[read]):
                return False
            in_gaps.add(whole[read])
            read += 1
        if position == len(damaged):
            break
        while read < len(whole) and whole[read] != damaged[position]:
            if not _is_letter(whole[read]):
                return False
            elsewhere.add(whole[read])
            read += 1
        if read == len(whole):
            return False
        read += 1
    return read == len(whole) and bool(in_gaps) and elsewhere <= in_gaps


def _is_letter(token: str) -> bool:
    return len(token) == 1 and token.isalpha()


def _is_gap(tokens: list[str], position: int) -> bool:
    """Whether an operand is missing before this token: in ``{}``, ``+^``, ``-}``, or between a fraction and ``^``."""
    if not position > 0:
        return False
    before = tokens[position - 1]
    after = tokens[position] if position < len(tokens) else "}"
    if after == "^":
        return before in OPENING | OPERATORS or (before == "}" and _ends_fraction(tokens, position - 1))
    return after in CLOSING and (before in OPERATORS or (before == "{" and after == "}" and position < len(tokens)))


def _ends_fraction(tokens: list[str], closing: int) -> bool:
    """Whether the group that closes here directly follows another, as a denominator follows its numerator."""
    depth = 0
    for position in range(closing, 0, -1):
        depth += (tokens[position] == "}") - (tokens[position] == "{")
        if depth == 0:
            return tokens[position - 1] == "}"
    return False
