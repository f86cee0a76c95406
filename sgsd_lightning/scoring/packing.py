"""Token sequences to model inputs: packed into one row without padding, or padded where packing is not possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sgsd_lightning.distributed.uploads import to_device
from sgsd_lightning.scoring.segments import Segment, Segments, Span
from sgsd_lightning.types import TokenSequence
from sgsd_lightning.types.arguments import require_at_least

RowLayout = Literal["padded", "packed", "shared"]
"""How sequences become model inputs; see :func:`pack`."""

MIN_SHARED_TOKENS = 32
"""Prompts with a shorter common prefix, such as a chat template's header, share nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """Model inputs of several sequences, and where their targets are predicted.

    ``N`` is the number of targets of all sequences, in the order of the sequences.
    """

    input_ids: Tensor
    """[1, L] int64 when packed, [sequences, longest] when padded on the right."""
    position_ids: Tensor
    """Same shape; starts at 0 with every sequence, continues after what a sequence shares."""
    predicted_from: Tensor
    """[N] int64: index into the flattened inputs of the position that predicts each target."""
    targets: Tensor
    """[N] int64."""
    segments: Segments | None
    """What attends to what when packed, None when padded."""

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on ``device``."""
        return PackedBatch(
            input_ids=to_device(self.input_ids, device),
            position_ids=to_device(self.position_ids, device),
            predicted_from=to_device(self.predicted_from, device),
            targets=to_device(self.targets, device),
            segments=None if self.segments is None else self.segments.to(device),
        )


def pack(sequences: Sequence[TokenSequence], layout: RowLayout = "packed") -> PackedBatch:
    """Lay out sequences for one forward pass, on the CPU.

    Args:
        sequences: At least one.
        layout: ``packed``: one row, sequence after sequence. ``shared``: the same, but a common prefix of several
            prompts is there once, followed by their continuations. ``padded``: one row per sequence, padded on the
            right, for attention that cannot keep packed sequences apart; under a causal mask no real token sees the
            padding, so that no attention mask is needed.

    Raises:
        ValueError: for no sequences, or for padded ones that are not causal: those would see the padding.
    """
    if not sequences:
        raise ValueError("pack needs at least one sequence")
    targets = torch.tensor([i for sequence in sequences for i in sequence.targets], dtype=torch.int64)
    if layout == "padded":
        if not all(sequence.is_causal for sequence in sequences):
            raise ValueError(
                "sequences that are not causal cannot be padded: they would see the padding; set policy.attention to "
                "sgsd_varlen"
            )
        return _padded(sequences, targets)
    row = _Row()
    for family in _families(sequences, layout):
        for member in family:
            row.add(member, sequences[member.place])
    return PackedBatch(
        input_ids=torch.tensor([row.input_ids]),
        position_ids=torch.cat(row.position_ids)[None],
        predicted_from=torch.cat([row.predicted_from[index] for index in range(len(sequences))]),
        targets=targets,
        segments=Segments(row.segments),
    )


class _Row:
    """A packed row as it grows."""

    def __init__(self) -> None:
        self.input_ids: list[int] = []
        self.position_ids: list[Tensor] = []
        self.segments: list[Segment] = []
        self.predicted_from: dict[int, Tensor] = {}
        self._last: tuple[Span, ...] = ()

    def add(self, member: _Member, sequence: TokenSequence) -> None:
        """Append the tokens that a sequence does not share with the one added before it."""
        own_ids = sequence.input_ids[member.num_shared :]
        prefix = _first_tokens(self._last, member.num_shared)
        own = Span(len(self.input_ids), len(own_ids))
        if own_ids:
            self.segments.append(
                Segment(start=own.start, length=own.length, prefix=prefix, is_causal=sequence.is_causal)
            )
        self.input_ids += own_ids
        self.position_ids.append(torch.arange(own.length) + member.num_shared)
        self._last = (*prefix, own)
        places = torch.cat([torch.arange(span.length) + span.start for span in self._last])
        self.predicted_from[member.place] = places[torch.tensor(sequence.predicted_from, dtype=torch.int64)]


def _first_tokens(spans: Sequence[Span], num_tokens: int) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in spans:
        length = min(span.length, num_tokens)
        num_tokens -= length
        if length > 0:
            kept.append(Span(span.start, length))
    return tuple(kept)


def _padded(sequences: Sequence[TokenSequence], targets: Tensor) -> PackedBatch:
    longest = max(sequence.num_input_tokens for sequence in sequences)
    rows = [[*sequence.input_ids, *[0] * (longest - sequence.num_input_tokens)] for sequence in sequences]
    return PackedBatch(
        input_ids=torch.tensor(rows),
        position_ids=torch.arange(longest).expand(len(rows), longest),
        predicted_from=torch.cat(
            [
                torch.tensor(sequence.predicted_from, dtype=torch.int64) + index * longest
                for index, sequence in enumerate(sequences)
            ]
        ),
        targets=targets,
        segments=None,
    )


class _Member(NamedTuple):
    """A sequence, and the length of its common prefix with the previous one of its family."""

    place: int
    """Index into the sequences."""
    num_shared: int


def _families(sequences: Sequence[TokenSequence], layout: RowLayout) -> list[list[_Member]]:
    """Group sequences with a common prefix, in the order of each family's first.

    Only what comes before the first prediction is shared. In lexicographic order none shares more with any before it
    than with the one just before.
    """
    if layout != "shared":
        return [[_Member(index, 0)] for index in range(len(sequences))]
    families: list[list[_Member]] = []
    before: tuple[int, ...] = ()
    for index in sorted(range(len(sequences)), key=lambda index: (sequences[index].shareable_ids, index)):
        shareable = sequences[index].shareable_ids
        num_shared = _num_shared(before, shareable)
        if 0 < num_shared == len(shareable) == len(before) or num_shared >= MIN_SHARED_TOKENS:
            families[-1].append(_Member(index, num_shared))
        else:
            families.append([_Member(index, 0)])
        before = shareable
    return sorted(families, key=lambda family: family[0].place)


def _num_shared(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    if first == second:
        return len(first)
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def forward_passes(
    sequences: Sequence[TokenSequence], tokens_per_forward: int, layout: RowLayout = "packed"
) -> list[list[int]]:
    """Split sequences into forward passes of at most ``tokens_per_forward`` tokens, as :func:`pack` lays them out.

    Longest first, ties in their order, each pass filled before the next is begun: deterministic, and sequences of
    similar length share a pass, which is what keeps padding small. Sequences that share tokens stay together while the
    budget lets them. A sequence longer than the budget gets its own pass. Causal sequences never share a pass with
    others, which variable-length kernels could not run.

    Args:
        sequences: The sequences to score.
        tokens_per_forward: The budget, at least 1. Padding counts; shared tokens count once.
        layout: The layout of every pass.

    Returns:
        Indices into ``sequences``, pass by pass; every index once.
    """
    require_at_least(1, "tokens_per_forward", tokens_per_forward)
    families = _families(sequences, layout)
    kinds = {sequences[family[0].place].is_causal for family in families}
    return [
        indices
        for kind in sorted(kinds, reverse=True)
        for indices in _filled(
            [
                unit
                for family in families
                if sequences[family[0].place].is_causal is kind
                for unit in _units(sequences, family, tokens_per_forward)
            ],
            tokens_per_forward,
            layout,
        )
    ]


def _filled(units: Sequence[tuple[int, list[int]]], tokens_per_forward: int, layout: RowLayout) -> list[list[int]]:
    """Fill passes with units of (tokens, indices), longest first, one pass after the other."""
    passes: list[list[int]] = []
    num_tokens = first_cost = 0
    for cost, indices in sorted(units, key=lambda unit: (-unit[0], unit[1][0])):
        # the first of a pass is its longest, which is what padding fills every row up to
        added = first_cost if layout == "padded" else cost
        if not passes or num_tokens + added > tokens_per_forward:
            passes.append([])
            num_tokens, added, first_cost = 0, cost, cost
        passes[-1] += indices
        num_tokens += added
    return passes


def _units(sequences: Sequence[TokenSequence], family: Sequence[_Member], budget: int) -> list[tuple[int, list[int]]]:
    """Split a family into parts that fit the budget, each with its number of tokens."""
    units: list[tuple[int, list[int]]] = []
    for index, num_shared in family:
        num_tokens = sequences[index].num_input_tokens
        if units and units[-1][0] + num_tokens - num_shared <= budget:
            units[-1] = (units[-1][0] + num_tokens - num_shared, [*units[-1][1], index])
        else:
            units.append((num_tokens, [index]))
    return units
