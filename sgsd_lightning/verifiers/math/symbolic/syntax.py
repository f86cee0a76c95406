"""Tokens to a tree, by precedence: relations, set operations, sums, products, powers, atoms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgsd_lightning.verifiers.math.symbolic.nodes import Node, number
from sgsd_lightning.verifiers.math.symbolic.tokens import NotRead, Token

RELATIONS = frozenset(["=", "<", ">", "<=", ">=", "!=", "in", "notin", "equiv", "|", ":", "~"])
SET_OPERATIONS = {"cup": "union", "cap": "intersection", "setminus": "minus"}
ATOM_STARTS = frozenset(
    [
        "number",
        "symbol",
        "constant",
        "function",
        "style",
        "(",
        "{",
        r"\frac",
        r"\sqrt",
        r"\binom",
        r"\lfloor",
        r"\lceil",
    ]
)
UNBRACKETED = ATOM_STARTS - {"function"}
BINDERS = {r"\sum": "sum", r"\prod": "product"}
OF_ONE_LETTER = frozenset("fghFGHPQ")
"""Letters that denote a function, not a factor, before one letter in brackets."""
MAX_DEPTH = 200


class Reader:
    """A recursive descent over the tokens of one text.

    Every method that reads raises NotRead on an unexpected token.

    Args:
        tokens: of the text.
        atoms: what reads a value, by the kind of the token that it starts with.
    """

    def __init__(self, tokens: list[Token], atoms: Mapping[str, Callable[[Reader], Node]]) -> None:
        self.tokens = tokens
        self.atoms = atoms
        self.position = 0
        self.num_bars = 0
        self.is_in_set = False
        self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    @property
    def kind(self) -> str:
        return self.tokens[self.position].kind if self.position < len(self.tokens) else ""

    def next_kind(self, ahead: int = 1) -> str:
        return self.tokens[self.position + ahead].kind if self.position + ahead < len(self.tokens) else ""

    def take(self, *kinds: str) -> Token:
        if kinds and self.kind not in kinds:
            raise NotRead(f"{self.kind or 'the end'} instead of {kinds}")
        if not self.kind:
            raise NotRead("the end")
        self.position += 1
        return self.tokens[self.position - 1]

    def sequence(self) -> Node:
        """Relations separated by commas."""
        parts = [self.relation()]
        while self.kind == ",":
            self.take()
            parts.append(self.relation())
        inner = parts[0] if len(parts) == 1 else Node("tuple", tuple(parts))
        if self.kind == r"\choose":
            self.take()
            return Node("call", (inner, self.sequence()), "binomial")
        return inner

    def relation(self) -> Node:
        sides, signs = [self.set_operation()], []
        while self.kind in RELATIONS and not (self.kind == "|" and self.num_bars):
            signs.append(self.take().kind)
            sides.append(self.set_operation())
        if not signs:
            return sides[0]
        if set(signs) == {":"} and not self.is_in_set:
            return ratio(sides)
        if ":" in signs and not self.is_in_set:
            return _ratios(sides, signs)
        return Node("relation", tuple(sides), " ".join(signs))

    def set_operation(self) -> Node:
        left = self.sum()
        while self.kind in SET_OPERATIONS:
            operation = SET_OPERATIONS[self.take().kind]
            left = Node(operation, (left, self.sum()))
        return left

    def sum(self) -> Node:
        terms = [self.term()]
        while self.kind in ("+", "-"):
            sign = self.take().kind
            term = self.term()
            terms.append(Node("neg", (term,)) if sign == "-" else term)
        total = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
        if self.kind in ("mod", r"\pmod"):
            self.take()
            total = Node("mod", (total, self.power()))
        elif self.kind == "(" and self.next_kind() == "mod":
            self.take("(")
            self.take("mod")
            total = Node("mod", (total, self.sum()))
            self.take(")")
        return total

    def term(self) -> Node:
        if self.kind in ("+", "-"):
            sign = self.take().kind
            term = self.term()
            return Node("neg", (term,)) if sign == "-" else term
        left = self.power()
        while True:
            if self.kind in ("*", "/"):
                operation = self.take().kind
                right = self.signed_power()
                left = Node("mul" if operation == "*" else "div", (left, right))
            elif self.starts_factor():
                if self.kind == "number" and self.tokens[self.position - 1].kind == "number":
                    raise NotRead("two numbers side by side")
                is_mixed = self.kind == r"\frac" and left.kind == "number" and left.value.denominator == 1
                right = self.power()
                left = Node("add" if is_mixed and _is_plain_fraction(right) else "mul", (left, right))
            else:
                return left

    def starts_factor(self) -> bool:
        if self.kind == "(" and self.next_kind() == "mod":
            return False
        is_bar = self.kind in ("|", "||") and not self.num_bars and self.closes_bar()
        return self.kind in ATOM_STARTS or self.kind in BINDERS or is_bar

    def closes_bar(self) -> bool:
        """Whether another bar follows: ``2|x|`` has one, ``{x | x > 1}`` has not."""
        return any(token.kind == self.kind for token in self.tokens[self.position + 1 :])

    def signed_power(self) -> Node:
        if self.kind in ("+", "-"):
            sign = self.take().kind
            inner = self.signed_power()
            return Node("neg", (inner,)) if sign == "-" else inner
        return self.power()

    def power(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        base = self.postfix(self.atom())
        if self.kind == "^":
            self.take()
            base = self.postfix(Node("pow", (base, self.exponent())))
        self.depth -= 1
        return base

    def postfix(self, base: Node) -> Node:
        while self.kind in ("!", "degree", "%"):
            kind = self.take().kind
            if kind == "!":
                base = Node("factorial", (base,))
            elif kind == "degree":
                base = Node("mul", (base, Node("div", (Node("constant", name="pi"), number(180)))))
            else:
                base = Node("div", (base, number(100)))
        return base

    def exponent(self) -> Node:
        if self.kind in ("+", "-"):
            sign = self.take().kind
            inner = self.exponent()
            return Node("neg", (inner,)) if sign == "-" else inner
        base = self.atom()
        if self.kind == "^":
            self.take()
            return Node("pow", (base, self.exponent()))
        return base

    def atom(self) -> Node:
        rule = self.atoms.get(self.kind)
        if rule is None:
            raise NotRead(f"{self.kind or 'the end'} instead of a value")
        return rule(self)

    def group(self) -> Node:
        r"""What stands in braces, or the one token that an argument without braces is: ``\frac12``."""
        if self.kind == "{":
            self.take()
            inner = self.sequence()
            self.take("}")
            return inner
        if self.kind == "number" and len(self.token.text) > 1 and self.token.text.isdigit():
            return self.first_digit()
        return self.atom()

    def first_digit(self) -> Node:
        text = self.token.text
        self.tokens[self.position] = Token("number", text[1:], leaf=number(int(text[1:])))
        return number(int(text[0]))

    def operand(self) -> Node:
        r"""The argument of a function without brackets: ``\sin 2x`` up to the next sign, bracket or function."""
        if self.kind == "(":
            return self.atom()
        if self.kind == "function":
            return self.power()
        if self.kind == "-":
            self.take()
            return Node("neg", (self.operand(),))
        factors = [self.power()]
        while self.kind in UNBRACKETED and self.kind != "(":
            factors.append(self.power())
        if self.kind == "/" and len(factors) == 1 and self.next_kind() == "number" and factors[0].kind == "constant":
            self.take()
            return Node("div", (factors[0], self.power()))
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def ratio(parts: list[Node]) -> Node:
    """``a:b`` is a quotient; longer ones are tuples over their first part."""
    if len(parts) == 2:
        return Node("div", (parts[0], parts[1]))
    return Node("tuple", tuple(Node("div", (part, parts[0])) for part in parts[1:]), "ratio")


def _ratios(sides: list[Node], signs: list[str]) -> Node:
    """A relation between ratios, such as ``AB:BC = 2:5``."""
    groups, outer = [[sides[0]]], []
    for sign, side in zip(signs, sides[1:], strict=True):
        if sign == ":":
            groups[-1].append(side)
        else:
            outer.append(sign)
            groups.append([side])
    parts = tuple(ratio(group) if len(group) > 1 else group[0] for group in groups)
    return Node("relation", parts, " ".join(outer))


def _is_plain_fraction(node: Node) -> bool:
    return node.kind == "div" and all(part.kind == "number" for part in node.parts)
