"""Compares the values of two trees at random points, with enough digits to tell close values apart."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from fractions import Fraction

import mpmath
from mpmath import mp

from sgsd_lightning.verifiers.math.symbolic.nodes import Node
from sgsd_lightning.verifiers.math.symbolic.numeric import Evaluation, NotReal, Undefined, Value, exact

FEWEST_DIGITS = 40
MOST_DIGITS = 20_000
SLACK_DIGITS = 15
MIN_POINTS = 3


def same_value(left: Node, right: Node) -> bool:
    """Whether two expressions agree wherever both are defined, over the reals unless i occurs in one of them."""
    if left == right:
        return True
    symbols = sorted(left.symbols() | right.symbols())
    if not symbols:
        values = exact(left), exact(right)
        if None not in values:
            return values[0] == values[1]
        return _same_constants(left, right)
    is_real = not (left.holds("constant", "i") or right.holds("constant", "i"))
    return _same_functions(left, right, symbols, is_real)


def _same_constants(left: Node, right: Node) -> bool:
    for is_real in (True, False):
        if is_real and (left.holds("constant", "i") or right.holds("constant", "i")):
            continue
        try:
            return agree_at({}, left, right, is_real)
        except NotReal:
            continue
        except Undefined:
            return False
    return False


def _same_functions(left: Node, right: Node, symbols: list[str], is_real: bool) -> bool:
    num_agreeing = 0
    for point in points(symbols):
        try:
            if not agree_at(point, left, right, is_real):
                return False
        except Undefined:
            continue
        num_agreeing += 1
    return num_agreeing >= MIN_POINTS


def points(symbols: list[str]) -> Iterator[dict[str, Fraction]]:
    """Yield fixed points: positive, of both signs, all negative, and integers."""
    generator = random.Random(0)
    for _ in range(4):
        yield {symbol: Fraction(generator.randint(1, 300), 97) for symbol in symbols}
    for turn in range(6):
        signs = [-1 if turn >= 4 or (turn + place) % 2 == 0 else 1 for place in range(len(symbols))]
        yield {
            symbol: Fraction(sign * generator.randint(5, 300), 89) for symbol, sign in zip(symbols, signs, strict=True)
        }
    for _ in range(4):
        yield {symbol: Fraction(generator.randint(3, 12)) for symbol in symbols}


def agree_at(point: Mapping[str, Fraction], left: Node, right: Node, is_real: bool) -> bool:
    """Whether two trees agree at a point.

    Raises:
        Undefined: where one has no value there.
    """
    values = pair_at(point, left, right, is_real)
    return values[0] == 0


def pair_at(point: Mapping[str, Fraction], left: Node, right: Node, is_real: bool) -> tuple[int, Value, Value]:
    """The sign of left - right, 0 where they agree and 1 where they are not ordered, and the two values.

    Raises:
        Undefined: where one has no value there, or one that MOST_DIGITS digits cannot tell from others.
    """
    with mp.workdps(FEWEST_DIGITS):
        probe = Evaluation(point, is_real)
        probe.of(left), probe.of(right)
        if probe.spread > MOST_DIGITS - 2 * SLACK_DIGITS:
            raise Undefined("values too large or too close for the digits there are")
        digits = min(MOST_DIGITS, FEWEST_DIGITS + int(3 * probe.spread))
    with mp.workdps(digits):
        evaluation = Evaluation(point, is_real)
        values = evaluation.of(left), evaluation.of(right)
        if not all(map(mpmath.isfinite, values)):
            return _order(values[0], values[1]), *values
        difference = values[0] - values[1]
        # no value in the trees is below 10 ** -spread, far above this bound: it is relative to the smallest
        scale = max(mp.mpf(1), abs(values[0]), abs(values[1]), evaluation.peak)
        if abs(difference) <= scale * mp.mpf(10) ** (SLACK_DIGITS - digits):
            return 0, *values
        return _order(values[0], values[1]), *values


def _order(left: Value, right: Value) -> int:
    if left == right:
        return 0
    if isinstance(left, mpmath.mpc) or isinstance(right, mpmath.mpc):
        return 1
    return 1 if left > right else -1
