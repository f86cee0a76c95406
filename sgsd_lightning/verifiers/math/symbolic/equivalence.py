"""Equivalence of two trees: values, sets, relations, tuples and matrices."""

from __future__ import annotations

from fractions import Fraction

from sgsd_lightning.verifiers.math.listed import listed
from sgsd_lightning.verifiers.math.symbolic.comparing import MIN_POINTS, agree_at, pair_at, points, same_value
from sgsd_lightning.verifiers.math.symbolic.nodes import SETS, Node, number
from sgsd_lightning.verifiers.math.symbolic.numeric import Undefined
from sgsd_lightning.verifiers.math.symbolic.realsets import MIRRORED, NotASet, pieces, same_pieces

ORDERED = frozenset(listed("< > <= >= !="))
MAX_FINITE = 64


def equivalent(left: Node, right: Node) -> bool:
    """Whether two trees are equivalent. A pair is an interval if the other side is a set, else a tuple."""
    if left == right:
        return True
    kinds = left.kind, right.kind
    if "matrix" in kinds:
        return _same_matrices(_as_matrix(left, right), _as_matrix(right, left))
    if "mod" in kinds:
        return kinds == ("mod", "mod") and _same_parts(left, right)
    if kinds == ("pair", "pair") and left.name != right.name:
        return False
    if _is_sequence(left) and _is_sequence(right):
        return left.kind == right.kind and left.name == right.name and _same_parts(left, right)
    if _is_equation(left) or _is_equation(right):
        return _is_equation(left) and _is_equation(right) and _same_equations(left, right)
    if any(node.kind in SETS or node.kind == "relation" for node in (left, right)):
        return _same_sets(left, right)
    return not (_is_sequence(left) or _is_sequence(right)) and same_value(left, right)


def _is_sequence(node: Node) -> bool:
    return node.kind in ("pair", "tuple")


def _same_parts(left: Node, right: Node) -> bool:
    return len(left.parts) == len(right.parts) and all(
        equivalent(one, other) for one, other in zip(left.parts, right.parts, strict=True)
    )


def _as_matrix(node: Node, other: Node) -> Node:
    """Return a tuple as a matrix in the shape of the other side's row or column."""
    if node.kind == "matrix" or not _is_sequence(node) or (node.kind == "pair" and node.name != "()"):
        return node
    if len(other.parts) == 1:
        return Node("matrix", (Node("tuple", node.parts),))
    return Node("matrix", tuple(Node("tuple", (part,)) for part in node.parts))


def _same_matrices(left: Node, right: Node) -> bool:
    return (
        left.kind == right.kind == "matrix"
        and len(left.parts) == len(right.parts)
        and all(_same_parts(one, other) for one, other in zip(left.parts, right.parts, strict=True))
    )


def _is_equation(node: Node) -> bool:
    return node.kind == "relation" and node.name == "=" and not _names_a_set(node)


def _names_a_set(node: Node) -> bool:
    return node.parts[1].kind in SETS


def _same_equations(left: Node, right: Node) -> bool:
    """Whether left - right of the one is a constant times that of the other; both must hold for more than one point."""
    sides = [Node("add", (node.parts[0], Node("neg", (node.parts[1],)))) for node in (left, right)]
    symbols = sorted(sides[0].symbols() | sides[1].symbols())
    if not symbols or any(part.kind in SETS or _is_sequence(part) for node in (left, right) for part in node.parts):
        return False
    is_real = not any(side.holds("constant", "i") for side in sides)
    places = list(points(symbols))
    for reference in places:
        moved = [_at(side, reference) for side in sides]
        products = Node("mul", (sides[0], moved[1])), Node("mul", (sides[1], moved[0]))
        num_agreeing = 0
        try:
            if any(agree_at(reference, side, number(0), is_real) for side in sides):
                continue
            if _is_constant(sides[0], places, is_real):
                return False
        except Undefined:
            continue
        for place in places:
            try:
                if not agree_at(place, *products, is_real):
                    return False
            except Undefined:
                continue
            num_agreeing += 1
        return num_agreeing > MIN_POINTS
    return False


def _is_constant(side: Node, places: list[dict[str, Fraction]], is_real: bool) -> bool:
    """Whether a side does not depend on its symbols: such an equation holds nowhere or everywhere."""
    first = Node("add", (side, Node("neg", (_at(side, places[0]),))))
    return all(agree_at(place, first, number(0), is_real) for place in places[1:4])


def _at(node: Node, point: dict[str, Fraction]) -> Node:
    if node.kind == "symbol":
        return number(point[node.name]) if node.name in point else node
    if node.kind in ("sum", "product"):
        inner = {name: value for name, value in point.items() if name != node.parts[0].name}
        return Node(node.kind, (node.parts[0], *(_at(part, inner) for part in node.parts[1:])), node.name)
    return Node(node.kind, tuple(_at(part, point) for part in node.parts), node.name, node.value)


def _same_sets(left: Node, right: Node) -> bool:
    if left.kind == right.kind == "relation" and _same_chains(left, right):
        return True
    if left.kind == right.kind and left.kind in SETS and left.kind != "pair" and left.name == right.name:
        has_same_parts = left.kind != "finite" and _same_parts(left, right)
        if has_same_parts or (left.kind == "finite" and _same_elements(left, right)):
            return True
    return _same_pieces(left, right)


def _same_elements(left: Node, right: Node) -> bool:
    remaining = list(right.parts)
    if len(left.parts) != len(remaining) or len(remaining) > MAX_FINITE:
        return False
    for part in left.parts:
        match = next((other for other in remaining if equivalent(part, other)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _same_pieces(left: Node, right: Node) -> bool:
    """Whether two sets of reals are equal at several values of the symbols in their bounds."""
    if not all(node.kind in SETS or node.kind == "relation" for node in (left, right)):
        return False
    symbols = sorted(left.symbols() | right.symbols())
    num_agreeing = 0
    for point in list(points(symbols)) if symbols else [{}]:

        def compare(one: Node, other: Node, point: dict[str, Fraction] = point) -> int:
            return pair_at(point, one, other, True)[0]

        try:
            if not same_pieces(pieces(left, compare), pieces(right, compare), compare):
                return False
        except NotASet:
            return False
        except Undefined:
            continue
        num_agreeing += 1
    return num_agreeing >= (MIN_POINTS if symbols else 1)


def _same_chains(left: Node, right: Node) -> bool:
    """Whether two chains have the same links, read from either end; single inequalities also after moving a side."""
    for other in (right, _turned(right)):
        if other is not None and left.name == other.name and _same_parts(left, other):
            return True
        if other is not None and left.name == other.name and left.name in ORDERED and _same_sides_moved(left, other):
            return True
    return False


def _turned(node: Node) -> Node | None:
    signs = node.name.split()
    if not all(sign in MIRRORED for sign in signs):
        return None
    return Node("relation", node.parts[::-1], " ".join(MIRRORED[sign] for sign in reversed(signs)))


def _same_sides_moved(left: Node, right: Node) -> bool:
    sides = [Node("add", (node.parts[0], Node("neg", (node.parts[1],)))) for node in (left, right)]
    return same_value(*sides)
