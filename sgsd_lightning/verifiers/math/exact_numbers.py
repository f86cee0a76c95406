"""Exact values of plainly spelt numbers, without any library."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 1000
SIGN = r"([+-]?)\s*"
NUMBER = re.compile(rf"{SIGN}(?:(\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?: \d{{3}})+|\d+)(?:\.(\d*))?|\.(\d+))")
SCIENTIFIC = re.compile(rf"{SIGN}(\d+(?:\.\d+)?)[eE]([+-]?\d{{1,3}})")
FRACTION = re.compile(
    rf"{SIGN}(?:\\frac\s*\{{\s*([+-]?\d+)\s*\}}\s*\{{\s*([+-]?\d+)\s*\}}|(\d+)\s*/\s*(\d+)|\\frac\s*(\d)\s*(\d))"
)
REPEATING = re.compile(rf"{SIGN}(\d*)\.(\d*)(?:\\overline\s*\{{\s*(\d+)\s*\}}|\((\d+)\)|((?:\\dot\s*\{{?\d\}}?\d*)+))")
ENDLESS = re.compile(rf"{SIGN}(\d*)\.(\d+)\s*(?:\\[lc]?dots|\.\.\.)")
MIXED = re.compile(rf"{SIGN}(\d+)\s*(?:\\frac\s*\{{(\d+)\}}\s*\{{(\d+)\}}|\s(\d+)/(\d+))")


def exact_number(text: str) -> Fraction | None:
    r"""Return the value of an integer, (repeating) decimal, ``1.5e-3``, fraction of integers or mixed number.

    None for any other text.

    Repeating decimals are ``0.\overline{3}``, ``0.\dot{3}``, ``0.(3)`` and ``0.333...``. ``1,000`` and
    ``1 000`` are a thousand; ``1, 000`` is not a number.
    """
    text = text.strip()
    if not text or len(text) > MAX_DIGITS or not text.isascii():
        return None
    if match := NUMBER.fullmatch(text):
        sign, whole, decimals, bare = match.groups()
        digits = re.sub("[, ]", "", whole or "0")
        return _apply_sign(sign, Fraction(f"{digits}.{decimals or bare or '0'}"))
    if match := SCIENTIFIC.fullmatch(text):
        return _apply_sign(match[1], Fraction(f"{match[2]}e{match[3]}"))
    if match := REPEATING.fullmatch(text) or ENDLESS.fullmatch(text):
        return _repeating(match)
    if match := FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        top, bottom = (int(part) for part in parts if part is not None)
        return _apply_sign(sign, Fraction(top, bottom)) if bottom else None
    if match := MIXED.fullmatch(text):
        sign, *parts = match.groups()
        whole_part, top, bottom = (int(part) for part in parts if part is not None)
        return _apply_sign(sign, whole_part + Fraction(top, bottom)) if bottom else None
    return None


def _repeating(match: re.Match[str]) -> Fraction | None:
    sign, before, decimals, *periods = match.groups()
    if not periods:
        found = _period(decimals)
        if found is None:
            return None
        decimals, period = found
    else:
        period = re.sub(r"\D", "", next(group for group in periods if group))
    repeated = Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(decimals)
    return _apply_sign(sign, Fraction(f"{before or '0'}.{decimals or '0'}") + repeated)


def _period(decimals: str) -> tuple[str, str] | None:
    """Split the digits ``1666`` of ``0.1666...`` into those before the period and the period; None if none repeat."""
    for length in range(1, len(decimals) // 2 + 1):
        period = decimals[-length:]
        num = 0
        while decimals[: len(decimals) - num * length].endswith(period):
            num += 1
        before = decimals[: len(decimals) - num * length]
        if num >= 3 or (num == 2 and (length > 1 or not before)):
            return before, period
    return None


def _apply_sign(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value
