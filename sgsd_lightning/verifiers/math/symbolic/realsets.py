"""Sets of reals as sorted pieces, at fixed values of the symbols in their bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sgsd_lightning.verifiers.math.symbolic.nodes import SETS, Node, number

INFINITE = Node("constant", name="infinity")
MINUS_INFINITE = Node("neg", (INFINITE,))
MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}

Compare = Callable[[Node, Node], int]
"""-1, 0 or 1: how the values of two bounds are ordered. Raises Undefined where they are not."""


class NotASet(ValueError):
    """A tree that is no set of reals."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval, or a point if both bounds are equal."""

    low: Node
    high: Node
    has_low: bool
    has_high: bool


def pieces(node: Node, compare: Compare) -> list[Piece]:
    """Return the set that a tree denotes as disjoint pieces in order.

    Raises:
        NotASet: for a tree that is none.
        Undefined: where two bounds cannot be ordered.
    """
    if node.kind == "pair":
        return _piece(node.parts[0], node.parts[1], node.name[0] == "[", node.name[1] == "]", compare)
    if node.kind == "finite":
        return merged([Piece(part, part, True, True) for part in node.parts], compare)
    if node.kind == "numbers" and node.name == "R":
        return [Piece(MINUS_INFINITE, INFINITE, False, False)]
    if node.kind == "numbers" and node.name in ("R+", "R-"):
        zero = number(0)
        return [Piece(zero, INFINITE, False, False) if node.name == "R+" else Piece(MINUS_INFINITE, zero, False, False)]
    if node.kind == "union":
        return merged([piece for part in node.parts for piece in pieces(part, compare)], compare)
    if node.kind == "intersection":
        left, right = (pieces(part, compare) for part in node.parts)
        return merged([both for one in left for other in right for both in _meet(one, other, compare)], compare)
    if node.kind == "minus":
        left = pieces(node.parts[0], compare)
        for hole in pieces(node.parts[1], compare):
            left = [rest for piece in left for other in _outside(hole) for rest in _meet(piece, other, compare)]
        return merged(left, compare)
    if node.kind in ("relation", "builder"):
        return pieces(solved(node), compare)
    raise NotASet(node.kind)


def solved(node: Node) -> Node:
    """The set of the symbol for which a chain of relations, or a set builder with one, is written.

    Raises:
        NotASet: unless each relation holds the bare symbol on one side.
    """
    if node.kind == "builder":
        symbol, domain = _variable(node.parts[0])
        conditions = [solved_for(part, symbol) for part in node.parts[1:]]
        return _intersection([*([domain] if domain else []), *conditions])
    if node.kind != "relation":
        raise NotASet(node.kind)
    candidates = [side for side in node.parts if side.kind == "symbol"]
    if not candidates:
        candidates = [Node("symbol", name=name) for name in node.symbols()]
    if len(candidates) != 1:
        raise NotASet("no one variable")
    return solved_for(node, candidates[0])


def solved_for(node: Node, symbol: Node) -> Node:
    """The values of a symbol for which a chain of relations holds.

    Raises:
        NotASet: unless each relation holds the bare symbol on one side.
    """
    if node.kind != "relation":
        raise NotASet(node.kind)
    links = zip(node.parts, node.name.split(), node.parts[1:], strict=False)
    return _intersection([_link(left, sign, right, symbol) for left, sign, right in links])


def _variable(head: Node) -> tuple[Node, Node | None]:
    if head.kind == "symbol":
        return head, None
    if head.kind == "relation" and head.name == "in" and head.parts[0].kind == "symbol":
        return head.parts[0], head.parts[1]
    raise NotASet("a builder without a variable")


def _link(left: Node, sign: str, right: Node, symbol: Node) -> Node:
    if right == symbol and sign in MIRRORED:
        left, sign, right = right, MIRRORED[sign], left
    if symbol.name in right.symbols():
        raise NotASet("a relation that is not solved")
    if left != symbol:
        return _absolute(left, sign, right, symbol)
    if sign == "in" and right.kind in SETS:
        return right
    everything = Node("numbers", name="R")
    if sign == "notin" and right.kind in SETS:
        return Node("minus", (everything, right))
    if right.kind in SETS:
        raise NotASet(sign)
    bounds = {
        "<": Node("pair", (MINUS_INFINITE, right), "()"),
        "<=": Node("pair", (MINUS_INFINITE, right), "(]"),
        ">": Node("pair", (right, INFINITE), "()"),
        ">=": Node("pair", (right, INFINITE), "[)"),
        "=": Node("finite", (right,)),
        "!=": Node("minus", (everything, Node("finite", (right,)))),
    }
    if sign not in bounds:
        raise NotASet(sign)
    return bounds[sign]


def _absolute(left: Node, sign: str, right: Node, symbol: Node) -> Node:
    """``|x| < a`` and ``|x - b| < a``, and those with another sign."""
    if left.kind != "call" or left.name != "abs":
        raise NotASet("a relation that is not solved")
    inner = left.parts[0]
    shift: Node = number(0)
    if inner.kind == "add" and inner.parts[0] == symbol and len(inner.parts) == 2:
        shift = Node("neg", (inner.parts[1],))
    elif inner != symbol:
        raise NotASet("a relation that is not solved")
    low, high = Node("add", (shift, Node("neg", (right,)))), Node("add", (shift, right))
    if sign in ("<", "<="):
        return Node("pair", (low, high), "()" if sign == "<" else "[]")
    if sign in (">", ">="):
        inside = Node("pair", (low, high), "[]" if sign == ">" else "()")
        return Node("minus", (Node("numbers", name="R"), inside))
    raise NotASet(sign)


def _intersection(sets: list[Node]) -> Node:
    result = sets[0]
    for other in sets[1:]:
        result = Node("intersection", (result, other))
    return result


def _piece(low: Node, high: Node, has_low: bool, has_high: bool, compare: Compare) -> list[Piece]:
    order = compare(low, high)
    if order > 0 or (order == 0 and not (has_low and has_high)):
        return []
    return [Piece(low, high, has_low, has_high)]


def _outside(hole: Piece) -> tuple[Piece, Piece]:
    return (
        Piece(MINUS_INFINITE, hole.low, False, not hole.has_low),
        Piece(hole.high, INFINITE, not hole.has_high, False),
    )


def _meet(one: Piece, other: Piece, compare: Compare) -> list[Piece]:
    low, high = compare(one.low, other.low), compare(one.high, other.high)
    return _piece(
        one.low if low >= 0 else other.low,
        one.high if high <= 0 else other.high,
        one.has_low and other.has_low if low == 0 else (one if low > 0 else other).has_low,
        one.has_high and other.has_high if high == 0 else (one if high < 0 else other).has_high,
        compare,
    )


def merged(found: Iterable[Piece], compare: Compare) -> list[Piece]:
    """Sort pieces and merge those that touch."""
    result: list[Piece] = []
    for piece in sorted(found, key=_sort_key(compare)):
        if not result or not _touch(result[-1], piece, compare):
            result.append(piece)
            continue
        last = result[-1]
        high = compare(last.high, piece.high)
        end = last if high > 0 else piece
        has_high = last.has_high or piece.has_high if high == 0 else end.has_high
        has_low = last.has_low or (compare(last.low, piece.low) == 0 and piece.has_low)
        result[-1] = Piece(last.low, end.high, has_low, has_high)
    return result


def _touch(left: Piece, right: Piece, compare: Compare) -> bool:
    order = compare(left.high, right.low)
    return order > 0 or (order == 0 and (left.has_high or right.has_low))


def _sort_key(compare: Compare) -> Callable[[Piece], Any]:
    import functools

    return functools.cmp_to_key(lambda one, other: compare(one.low, other.low))


def same_pieces(left: list[Piece], right: list[Piece], compare: Compare) -> bool:
    """Whether two sets are equal."""
    return len(left) == len(right) and all(
        (one.has_low, one.has_high) == (other.has_low, other.has_high)
        and compare(one.low, other.low) == 0
        and compare(one.high, other.high) == 0
        for one, other in zip(left, right, strict=True)
    )
