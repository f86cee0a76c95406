"""Parses what a value can start with: numbers, names, functions, brackets and LaTeX commands."""

from __future__ import annotations

from collections.abc import Callable

from sgsd_lightning.verifiers.math.symbolic.nodes import Node, number
from sgsd_lightning.verifiers.math.symbolic.syntax import BINDERS, OF_ONE_LETTER, Reader
from sgsd_lightning.verifiers.math.symbolic.tokens import NotRead, tokenize

INVERSE = {"sin": "asin", "cos": "acos", "tan": "atan", "cot": "acot", "sec": "asec", "csc": "acsc"}
NUMBER_SETS = frozenset("RQZNC")


def _number(reader: Reader) -> Node:
    leaf = reader.take().leaf
    assert leaf is not None
    if reader.kind == "_":
        raise NotRead("a number in another base")
    return leaf


def _symbol(reader: Reader) -> Node:
    token = reader.take()
    name = token.text
    if reader.kind == "_":
        reader.take()
        name += "_" + _spelling(reader)
    while reader.kind == "'":
        reader.take()
        name += "'"
    inside = [reader.next_kind(ahead) for ahead in range(3)]
    if name[0] in OF_ONE_LETTER and inside in (["(", "symbol", ")"], ["(", "number", ")"]):
        reader.take("(")
        name += f"({reader.take().text})"
        reader.take(")")
    is_constant = token.kind == "constant" and name == token.text
    return Node("constant" if is_constant else "symbol", name=name)


def _spelling(reader: Reader) -> str:
    """The text of a subscript, with or without braces."""
    if reader.kind != "{":
        return reader.take().text
    depth, text = 0, ""
    while True:
        token = reader.take()
        depth += (token.kind == "{") - (token.kind == "}")
        if depth == 0:
            return text.removeprefix("{")
        text += token.text


def _function(reader: Reader) -> Node:
    name = reader.take().text
    base: Node | None = None
    exponent: Node | None = None
    while reader.kind in ("_", "^"):
        if reader.take().kind == "_":
            base = reader.group()
        else:
            exponent = reader.exponent()
    if exponent is not None and exponent.kind == "neg" and exponent.parts[0] == number(1) and name in INVERSE:
        name, exponent = INVERSE[name], None
    operand = reader.operand()
    arguments = operand.parts if operand.kind in ("tuple", "pair") else (operand,)
    if name == "exp":
        value = Node("pow", (Node("constant", name="e"), *arguments))
    elif name == "log":
        value = _logarithm(arguments[0], base)
    elif name == "sqrt":
        value = Node("pow", (arguments[0], Node("div", (number(1), number(2)))))
    else:
        value = Node("call", arguments, name)
    return value if exponent is None else Node("pow", (value, exponent))


def _logarithm(argument: Node, base: Node | None) -> Node:
    value = Node("call", (argument,), "ln")
    return value if base is None else Node("div", (value, Node("call", (base,), "ln")))


def _style(reader: Reader) -> Node:
    r"""``\mathrm{e}`` is e; ``\overline{AB}`` and ``\vec{a}`` are symbols of their own."""
    style = reader.take().text
    if style in ("operatorname", "mathrm", "text", "rm", "mathit", "textrm") and reader.kind == "{":
        inner = reader.tokens[reader.position + 1]
        if inner.kind == "function" and reader.next_kind(2) == "}":
            del reader.tokens[reader.position + 2]
            del reader.tokens[reader.position]
            return _function(reader)
    if style in ("vec", "overrightarrow", "bar", "hat", "tilde", "overline", "underline"):
        return Node("symbol", name=f"{style}:{_spelling(reader)}")
    return reader.group()


def _braces(reader: Reader) -> Node:
    return reader.group()


def _brackets(reader: Reader) -> Node:
    """Round or square: a group, a tuple, or a pair that may be an interval. A bracket may open to the other side."""
    opening = reader.take().kind
    bars, reader.num_bars = reader.num_bars, 0
    inner = reader.sequence()
    reader.num_bars = bars
    closing = reader.take(")", "]", "[").kind
    if inner.kind == "tuple" and len(inner.parts) == 2:
        return Node("pair", inner.parts, ("(" if opening != "[" else "[") + ("]" if closing == "]" else ")"))
    return inner


def _set(reader: Reader) -> Node:
    reader.take("{{")
    if reader.kind == "}}":
        reader.take()
        return Node("finite")
    was_in_set, reader.is_in_set = reader.is_in_set, True
    inner = reader.sequence()
    reader.is_in_set = was_in_set
    reader.take("}}")
    first = inner.parts[0] if inner.kind == "tuple" else inner
    separator = next((sign for sign in ("|", ":") if sign in first.name.split()), None) if first.parts else None
    if first.kind == "relation" and separator:
        return _builder(first, inner, separator)
    return Node("finite", inner.parts if inner.kind == "tuple" else (inner,))


def _builder(first: Node, inner: Node, separator: str) -> Node:
    signs = first.name.split()
    at = signs.index(separator)
    head = _chain(first.parts[: at + 1], signs[:at])
    condition = _chain(first.parts[at + 1 :], signs[at + 1 :])
    others = inner.parts[1:] if inner.kind == "tuple" else ()
    return Node("builder", (head, condition, *others))


def _chain(sides: tuple[Node, ...], signs: list[str]) -> Node:
    return sides[0] if not signs else Node("relation", sides, " ".join(signs))


def _fraction(reader: Reader) -> Node:
    reader.take()
    top = reader.group()
    return Node("div", (top, reader.group()))


def _root(reader: Reader) -> Node:
    reader.take()
    index = number(2)
    if reader.kind == "[":
        reader.take()
        index = reader.sum()
        reader.take("]")
    radicand = reader.atom() if reader.kind == "number" else reader.group()
    return Node("pow", (radicand, Node("div", (number(1), index))))


def _binomial(reader: Reader) -> Node:
    reader.take()
    top = reader.group()
    return Node("call", (top, reader.group()), "binomial")


def _bars(reader: Reader) -> Node:
    sign = reader.take().kind
    reader.num_bars += 1
    inner = reader.sum()
    reader.take(sign)
    reader.num_bars -= 1
    return Node("call", (inner,), "abs")


def _rounding(reader: Reader) -> Node:
    name = {r"\lfloor": "floor", r"\lceil": "ceil"}[reader.take().kind]
    inner = reader.sum()
    reader.take(r"\rfloor" if name == "floor" else r"\rceil")
    return Node("call", (inner,), name)


def _binder(reader: Reader) -> Node:
    kind = BINDERS[reader.take().kind]
    bounds: dict[str, Node] = {}
    for _ in range(2):
        end = reader.take("_", "^").kind
        bounds[end] = reader.group()
    first, last = bounds.get("_"), bounds.get("^")
    if first is None or last is None or first.kind != "relation" or first.name != "=":
        raise NotRead("the bounds of a sum")
    index, start = first.parts
    if index.kind not in ("symbol", "constant"):
        raise NotRead("the index of a sum")
    return Node(kind, (Node("symbol", name=index.name), start, last, _bound(reader.term(), index.name)))


def _bound(body: Node, index: str) -> Node:
    """The body with the index as a symbol, though it be ``i`` or ``e``."""
    if body.kind == "constant" and body.name == index:
        return Node("symbol", name=index)
    return Node(body.kind, tuple(_bound(part, index) for part in body.parts), body.name, body.value)


def _number_set(reader: Reader) -> Node:
    reader.take()
    name = _spelling(reader)
    if name not in NUMBER_SETS:
        raise NotRead(f"the set {name}")
    while reader.kind in ("^", "_"):
        reader.take()
        sign = _spelling(reader)
        name += sign if sign in ("+", "-", "*") else ""
    return Node("numbers", name=name)


def _matrix(reader: Reader) -> Node:
    reader.take(r"\begin")
    _spelling(reader)
    if reader.kind == "{":
        raise NotRead("an array")
    rows: list[Node] = []
    cells = [reader.sum()]
    while reader.kind in ("&", r"\\"):
        if reader.take().kind == r"\\":
            rows.append(Node("tuple", tuple(cells)))
            if reader.kind == r"\end":
                cells = []
                break
            cells = []
        cells.append(reader.sum())
    if cells:
        rows.append(Node("tuple", tuple(cells)))
    reader.take(r"\end")
    _spelling(reader)
    return Node("matrix", tuple(rows))


def _empty(reader: Reader) -> Node:
    reader.take()
    return Node("finite")


ATOMS: dict[str, Callable[[Reader], Node]] = {
    "number": _number, "symbol": _symbol, "constant": _symbol, "function": _function, "style": _style, "{": _braces,
    "(": _brackets, "[": _brackets, "]": _brackets, "{{": _set, r"\frac": _fraction, r"\sqrt": _root,
    r"\binom": _binomial, "|": _bars, "||": _bars, r"\lfloor": _rounding, r"\lceil": _rounding, r"\sum": _binder,
    r"\prod": _binder, r"\mathbb": _number_set, r"\begin": _matrix, r"\emptyset": _empty,
}  # fmt: skip


def parse(text: str) -> Node:
    """Parse a normalised text into a tree.

    Raises:
        NotRead: if the grammar does not cover the text.
        RecursionError: if it is nested too deeply.
    """
    reader = Reader(tokenize(text), ATOMS)
    tree = reader.sequence()
    if reader.kind:
        raise NotRead(f"at {reader.token.text!r}")
    return tree
