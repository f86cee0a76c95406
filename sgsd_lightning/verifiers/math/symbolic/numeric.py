"""Evaluates trees: to exact fractions if rational, else to as many digits as the sizes in the tree need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from sgsd_lightning.verifiers.math.listed import listed
from sgsd_lightning.verifiers.math.symbolic.nodes import Node

MAX_BITS = 200_000
MAX_FACTORIAL = 10_000
MAX_TERMS = 100_000
MAX_EXACT_TERMS = 2_000
MAX_INTEGER_POWER = 10_000

Value = Any
"""An mpmath real or complex number: mpmath has no types."""


class Undefined(ValueError):
    """A tree without a value at this point."""


class NotReal(Undefined):
    """A tree without a real value at this point."""


def exact(node: Node) -> Fraction | None:
    """Evaluate a tree whose parts are all rational and of moderate size; None for any other."""
    try:
        return _exact(node, {})
    except (ZeroDivisionError, OverflowError):
        return None


def _exact(node: Node, point: Mapping[str, Fraction]) -> Fraction | None:
    if node.kind == "number":
        return node.value
    if node.kind == "symbol":
        return point.get(node.name)
    if node.kind in ("sum", "product"):
        return _exact_series(node, point)
    if node.kind not in ("add", "mul", "div", "neg", "pow", "factorial", "call"):
        return None
    parts = [_exact(part, point) for part in node.parts]
    if any(part is None for part in parts):
        return None
    values = [part for part in parts if part is not None]
    if sum(_bits(value) for value in values) > MAX_BITS:
        return None
    if node.kind == "call":
        return _exact_call(node.name, values)
    if node.kind == "pow":
        return _exact_power(*values)
    if node.kind == "factorial":
        n = values[0]
        return Fraction(math.factorial(int(n))) if n.denominator == 1 and 0 <= n <= MAX_FACTORIAL else None
    if node.kind == "neg":
        return -values[0]
    if node.kind == "div":
        return values[0] / values[1]
    return sum(values, Fraction(0)) if node.kind == "add" else math.prod(values, start=Fraction(1))


def _exact_series(node: Node, point: Mapping[str, Fraction]) -> Fraction | None:
    index, first_node, last_node, body = node.parts
    first, last = _exact(first_node, point), _exact(last_node, point)
    if first is None or last is None or first.denominator != 1 or last.denominator != 1:
        return None
    if last - first > MAX_EXACT_TERMS:
        return None
    total = Fraction(node.kind == "product")
    for whole in range(int(first), int(last) + 1):
        term = _exact(body, {**point, index.name: Fraction(whole)})
        if term is None or _bits(total) + _bits(term) > MAX_BITS:
            return None
        total = total * term if node.kind == "product" else total + term
    return total


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    if base in (0, 1, -1):
        return Fraction(1) if exponent == 0 else base ** (int(exponent) if exponent > 0 else -int(-exponent % 2 or 2))
    return base ** int(exponent) if abs(exponent) * _bits(base) <= MAX_BITS else None


def _exact_call(name: str, values: list[Fraction]) -> Fraction | None:
    if name in ("floor", "ceil", "abs", "sgn") and len(values) == 1:
        value = values[0]
        return {
            "floor": lambda: Fraction(math.floor(value)),
            "ceil": lambda: Fraction(math.ceil(value)),
            "abs": lambda: abs(value),
            "sgn": lambda: Fraction((value > 0) - (value < 0)),
        }[name]()
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if all(value.denominator == 1 for value in values):
        whole = [int(value) for value in values]
        if name in ("gcd", "lcm"):
            return Fraction(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))
        if name == "binomial" and 0 <= whole[1] <= whole[0] <= MAX_FACTORIAL:
            return Fraction(math.comb(*whole))
    return None


class Evaluation:
    """Evaluates trees at one point, at mpmath's current precision.

    Args:
        point: the symbols' values.
        is_real: whether roots and logarithms of negative numbers are refused instead of being complex.
    """

    def __init__(self, point: Mapping[str, Fraction], is_real: bool = True) -> None:
        self.point = dict(point)
        self.is_real = is_real
        self.spread = 0.0
        """Decimal digits between the largest and the smallest value: cancellation needs as many more."""
        self.peak = mp.mpf(0)
        """The largest term of a sum."""

    def of(self, node: Node) -> Value:
        """The value of a tree.

        Raises:
            Undefined: if it has none: a pole, a free symbol, a set.
            NotReal: if it has no real value.
        """
        try:
            value = self._of(node)
        except (ZeroDivisionError, ArithmeticError, ValueError, TypeError) as error:
            raise error if isinstance(error, Undefined) else Undefined(str(error)) from error
        if isinstance(value, mpmath.mpc) and value.imag == 0:
            value = value.real
        if mpmath.isnan(value):
            raise Undefined("not a number")
        if value and mpmath.isfinite(value):
            self.spread += abs(float(mpmath.log10(abs(value))))
        return value

    def _of(self, node: Node) -> Value:
        if node.kind in ("sum", "product"):
            return self._series(node)
        if node.kind == "number":
            return mp.mpf(node.value.numerator) / node.value.denominator
        if node.kind == "symbol":
            if node.name not in self.point:
                raise Undefined(node.name)
            value = self.point[node.name]
            return mp.mpf(value.numerator) / value.denominator
        if node.kind == "constant":
            return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1), "infinity": mp.inf}[node.name]
        if node.kind == "pow":
            return self._power(node.parts[0], node.parts[1])
        values = [self.of(part) for part in node.parts]
        if node.kind == "add":
            self.peak = max(self.peak, *(abs(value) for value in values if mpmath.isfinite(value)), mp.mpf(0))
            return sum(values[1:], start=values[0])
        if node.kind == "mul":
            return math.prod(values[1:], start=values[0])
        if node.kind == "div":
            return values[0] / values[1]
        if node.kind == "neg":
            return -values[0]
        if node.kind == "factorial":
            return mp.factorial(values[0])
        if node.kind == "call":
            return self._call(node.name, values)
        raise Undefined(node.kind)

    def _call(self, name: str, values: list[Value]) -> Value:
        if name in SATURATING and mpmath.isfinite(values[0]):
            # e ** (-2 |x|) is what separates the value from 1
            self.spread += float(2 * abs(values[0]) / mp.ln(10))
        value = CALLS[name](*values)
        if self.is_real and isinstance(value, mpmath.mpc) and value.imag != 0:
            raise NotReal(name)
        return value

    def _power(self, base_node: Node, exponent_node: Node) -> Value:
        base, exponent = self.of(base_node), self.of(exponent_node)
        rational = exact(exponent_node)
        if isinstance(base, mpmath.mpc) or isinstance(exponent, mpmath.mpc) or base >= 0:
            return self._whole_power(base, exponent, rational)
        if rational is not None and rational.denominator % 2:
            # the real root, which a negative number has
            size = self._whole_power(-base, exponent, rational)
            return -size if rational.numerator % 2 else size
        if rational is None and exponent == mpmath.floor(exponent) and abs(exponent) < MAX_INTEGER_POWER:
            return base ** int(exponent)
        if self.is_real:
            raise NotReal("an even root of a negative number")
        return mp.mpc(base) ** exponent

    def _whole_power(self, base: Value, exponent: Value, rational: Fraction | None) -> Value:
        if rational is not None and rational.denominator == 1 and abs(rational) < MAX_INTEGER_POWER:
            return base ** int(rational)
        return base**exponent

    def _series(self, node: Node) -> Value:
        index, first_node, last_node, body = node.parts
        first, last = self.of(first_node), self.of(last_node)
        if first != mpmath.floor(first) or (mpmath.isfinite(last) and last != mpmath.floor(last)):
            raise Undefined("a sum over no whole number of terms")
        if last == mp.inf:
            return self._endless(node.kind, index.name, int(first), body)
        if last - first > MAX_TERMS:
            raise Undefined("a sum of too many terms")
        total, spread = mp.mpf(node.kind == "product"), 0.0
        for whole in range(int(first), int(last) + 1):
            term, term_spread = self._term(body, index.name, whole)
            total = total * term if node.kind == "product" else total + term
            spread = max(spread, term_spread)
        self.spread += spread
        return total

    def _term(self, body: Node, index: str, whole: int) -> tuple[Value, float]:
        """The value of one term and its spread; its peak counts here."""
        inner = Evaluation({**self.point, index: Fraction(whole)}, self.is_real)
        value = inner.of(body)
        self.peak = max(self.peak, inner.peak, abs(value) if mpmath.isfinite(value) else mp.mpf(0))
        return value, inner.spread

    def _endless(self, kind: str, index: str, first: int, body: Node) -> Value:
        def term(whole: Value) -> Value:
            return Evaluation({**self.point, index: Fraction(int(whole))}, self.is_real).of(body)

        # terms far out are as small as one likes: the first tells how close the coefficients are
        self.spread += self._term(body, index, first)[1]
        return mp.nsum(term, [first, mp.inf]) if kind == "sum" else mp.nprod(term, [first, mp.inf])


def _inverse_cotangent(value: Value) -> Value:
    return mp.pi / 2 - mp.atan(value)


def _whole(function: Callable[..., int]) -> Callable[..., Value]:
    def of_whole_numbers(*values: Value) -> Value:
        if any(value != mpmath.floor(value) for value in values):
            raise Undefined("of numbers that are not whole")
        return mp.mpf(function(*(int(value) for value in values)))

    return of_whole_numbers


SATURATING = frozenset({"tanh", "coth"})
"""Functions that approach 1 faster than any power of their argument."""
CALLS: dict[str, Callable[..., Value]] = {
    **{
        name: getattr(mp, name)
        for name in listed(
            "sin cos tan cot sec csc asin acos atan asec acsc sinh cosh tanh coth asinh acosh atanh ln cbrt floor ceil "
            "binomial"
)
    },
    "acot": _inverse_cotangent,
    "lg": mp.log10,
    "abs": abs,
    "sgn": mp.sign,
    "max": max,
    "min": min,
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
}  # fmt: skip
