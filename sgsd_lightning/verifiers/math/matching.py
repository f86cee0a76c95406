"""Matches the values of two lists by their labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sgsd_lightning.verifiers.math.labels import Label

INDEXED = re.compile(r"(.+)_\{?(\d+)\}?")


def same_label(label: Label | None, other: Label | None) -> bool:
    """Whether two labels are compatible; a missing label, or one of another kind, is compatible with any."""
    return label is None or other is None or label.kind != other.kind or label.agrees(other)


def order_counts(labels: Sequence[Label | None], others: Sequence[Label | None]) -> bool:
    """Whether two lists are compared by position.

    True if labels distinguish the values of one side and the other side's labels are missing or of another kind, so
    that they cannot match values. ``x_1`` and ``x_2``, the roots of one equation, do not distinguish values.
    """
    if None not in labels and None not in others:
        kinds = {label.kind for label in [*labels, *others] if label is not None}
        return len(kinds) > 1
    return max(_num_distinct(labels), _num_distinct(others)) > 1


def _num_distinct(labels: Sequence[Label | None]) -> int:
    """Count the values that the labels distinguish; 1 if they number roots from 1 on."""
    named = [label for label in labels if label is not None]
    found = [INDEXED.fullmatch(label.text) for label in named]
    indexed = [(match[1], int(match[2])) for match in found if match]
    if len(indexed) == len(labels) > 0 and len({base for base, _ in indexed}) == 1:
        return 1 if sorted(index for _, index in indexed) == list(range(1, len(labels) + 1)) else len(indexed)
    return len({label.text for label in named})
