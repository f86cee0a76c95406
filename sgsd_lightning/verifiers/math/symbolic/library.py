"""Expressions beyond our grammar, such as integrals and limits: parsed by math-verify, evaluated by sympy."""

from __future__ import annotations

import functools
import importlib
from typing import Any

DIGITS = 60
TOLERANCE_DIGITS = 40


def load() -> None:
    """Import the libraries, which takes seconds on a busy machine.

    Raises:
        ImportError: if math-verify is not installed.
    """
    importlib.import_module("math_verify")


def equivalent(text: str, other: str) -> bool:
    """Whether two expressions are equal: their difference is zero, exactly or to many digits."""
    import sympy

    sides = _parsed(text), _parsed(other)
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return False
    left, right = (side.doit() for side in sides)
    difference = sympy.simplify(left - right)
    if difference == 0:
        return True
    if difference.free_symbols:
        return False
    value, scale = sympy.N(difference, DIGITS, maxn=10 * DIGITS), max(1, abs(sympy.N(left, DIGITS)))
    return bool(value.is_number and scale.is_finite and abs(value) < scale * sympy.Float(10) ** -TOLERANCE_DIGITS)


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    """Parse the whole text as LaTeX: math-verify's fallbacks would pick a number out of text that they cannot read."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    spelling = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    targets = [LatexExtractionConfig(normalization_config=spelling, boxed_match_priority=-1)]
    found = parse(f"${text}$", extraction_config=targets, fallback_mode="no_fallback", parsing_timeout=0)
    return found[0] if found else None
