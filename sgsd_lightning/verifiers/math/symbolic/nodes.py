"""The tree of an expression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Node:
    """One operation or leaf.

    ``kind`` and what it holds:

    - ``number`` (``value``), ``symbol`` (``name``), ``constant`` (``name``: pi, e, i, infinity);
    - ``add``, ``mul``: two or more parts; ``div``, ``pow``: two; ``neg``, ``factorial``: one; ``call`` (``name``): the
      arguments; ``mod``: value and modulus;
    - ``sum``, ``product``: index, first, last, body;
    - ``relation``: the sides, with the signs between them, separated by spaces, in ``name``;
    - ``pair`` (``name`` its two brackets), ``tuple``, ``finite``, ``union``, ``intersection``, ``minus``: the parts;
      ``builder``: head and conditions; ``numbers`` (``name``: R, Q, Z, N, each perhaps with + or - or *);
    - ``matrix``: rows, each a ``tuple``.
    """

    kind: str
    parts: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def symbols(self) -> set[str]:
        """The names of the free symbols."""
        found = {self.name} if self.kind == "symbol" else set()
        for part in self.parts:
            found |= part.symbols()
        return found - {self.parts[0].name} if self.kind in ("sum", "product") else found

    def holds(self, kind: str, name: str = "") -> bool:
        """Whether a node of this kind, and of this name where one is given, is in the tree."""
        return any(node.kind == kind and name in ("", node.name) for node in self.walk())


SETS = frozenset(["pair", "finite", "union", "intersection", "minus", "builder", "numbers"])


def number(value: Fraction | int) -> Node:
    """A number's leaf."""
    return Node("number", value=Fraction(value))
