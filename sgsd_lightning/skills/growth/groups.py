"""Groups similar items, so that a writer finds something to merge in each group."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sgsd_lightning.skills.bank import Item
from sgsd_lightning.skills.similarity import TextSimilarity, cosines


def group_similar(
    items: Sequence[Item], group_size: int, similarity: TextSimilarity, turn: int = 0
) -> list[list[Item]]:
    """Split items into as few groups of at most ``group_size`` as possible, whose sizes differ by at most one.

    Each group is an item and the most similar remaining ones, in the order of ``items``. Another ``turn`` starts with
    another item and so gives other groups, if there is more than one.
    """
    if not items:
        return []
    vectors = similarity.vectors([item.text for item in items])
    num_groups = math.ceil(len(items) / group_size)
    start = turn * group_size // 2 % len(items)
    left = np.concatenate([np.arange(start, len(items)), np.arange(start)])
    groups = []
    for index in range(num_groups):
        size = math.ceil(len(left) / (num_groups - index))
        likeness = cosines(vectors[left[:1]], vectors[left])[0]
        likeness[0] = np.inf  # a text without a word has similarity 0 with itself
        chosen = np.argsort(-likeness, kind="stable")[:size]
        groups.append([items[place] for place in sorted(left[chosen].tolist())])
        left = np.delete(left, chosen)
    return groups
