"""Token sequences to model inputs: packed into one row without padding, or padded where packing is not possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sgsd_lightning.policy.segments import Segment, Segments

RowLayout = Literal["padded", "packed", "shared"]
"""How sequences become model inputs; see :func:`pack`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSequence:
    """A prompt and the completion whose tokens are to be scored under it."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    @property
    def num_input_tokens(self) -> int:
        """Tokens that the model reads: all but the completion's last, which predicts nothing that is asked for."""
        return len(self.prompt_ids) + max(0, len(self.completion_ids) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """Model inputs of several sequences, and where their completion tokens are predicted.

    ``N`` is the number of completion tokens of all sequences, in the order of the sequences.
    """

    input_ids: Tensor
    """[1, L] int64 when packed, [sequences, longest] when padded on the right."""
    position_ids: Tensor
    """Same shape; starts at 0 with every sequence, goes on after the prompt with every completion that shares one."""
    predicted_from: Tensor
    """[N] int64: index into the flattened inputs of the position that predicts each completion token."""
    targets: Tensor
    """[N] int64: the completion tokens."""
    segments: Segments | None
    """What attends to what when packed, None when padded."""

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on ``device``."""
        return PackedBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            predicted_from=self.predicted_from.to(device),
            targets=self.targets.to(device),
            segments=None if self.segments is None else self.segments.to(device),
        )


def pack(sequences: Sequence[TokenSequence], layout: RowLayout = "packed", *, is_padded: bool = False) -> PackedBatch:
    """Lay out sequences for one forward pass, on the CPU.

    Args:
        sequences: At least one.
        layout: ``packed``: one row, sequence after sequence. ``shared``: the same, but a prompt that several sequences
            have is there once, before the completions of all of them. ``padded``: one row a sequence, padded on the
            right, for attention that cannot keep packed sequences apart; under a causal mask no real token sees the
            padding, so that no attention mask is needed.

    Raises:
        ValueError: for no sequences, or for an empty prompt, after which a first token has no prediction.
    """
    if not sequences:
        raise ValueError("pack needs at least one sequence")
    if any(not sequence.prompt_ids for sequence in sequences):
        raise ValueError("a prompt to score under has no tokens; it needs at least one, to predict the first from")
    targets = torch.tensor([i for sequence in sequences for i in sequence.completion_ids], dtype=torch.int64)
    if layout == "padded" or is_padded:
        return _padded(sequences, targets)
    row = _Row()
    groups = _by_prompt(sequences) if layout == "shared" else [[index] for index in range(len(sequences))]
    for group in groups:
        row.add(group, [sequences[index] for index in group])
    return PackedBatch(
        input_ids=torch.tensor([row.input_ids]),
        position_ids=torch.cat([torch.arange(*span) for span in row.positions])[None],
        predicted_from=torch.cat([row.predicted_from[index] for index in range(len(sequences))]),
        targets=targets,
        segments=Segments(row.segments),
    )


class _Row:
    """A packed row as it grows."""

    def __init__(self) -> None:
        self.input_ids: list[int] = []
        self.positions: list[tuple[int, int]] = []
        self.segments: list[Segment] = []
        self.predicted_from: dict[int, Tensor] = {}

    def add(self, indices: Sequence[int], sequences: Sequence[TokenSequence]) -> None:
        """Append sequences with one prompt: the first of them whole, of the others their completions."""
        start, num_prompt = len(self.input_ids), len(sequences[0].prompt_ids)
        self._append([*sequences[0].prompt_ids, *sequences[0].completion_ids[:-1]], position=0)
        self.predicted_from[indices[0]] = self._predicting(start + num_prompt, sequences[0], start + num_prompt - 1)
        self.segments.append(Segment(start=start, length=len(self.input_ids) - start))
        for index, sequence in zip(indices[1:], sequences[1:], strict=True):
            place, length = len(self.input_ids), len(sequence.completion_ids) - 1
            self._append(sequence.completion_ids[:-1], position=num_prompt)
            self.predicted_from[index] = self._predicting(place, sequence, start + num_prompt - 1)
            if length > 0:
                self.segments.append(Segment(start=place, length=length, prompt_start=start, prompt_length=num_prompt))

    def _append(self, ids: Sequence[int], position: int) -> None:
        self.input_ids.extend(ids)
        self.positions.append((position, position + len(ids)))

    def _predicting(self, place: int, sequence: TokenSequence, last_of_prompt: int) -> Tensor:
        """[completion] int64, for a completion that begins at ``place``."""
        positions = torch.arange(len(sequence.completion_ids)) + (place - 1)
        positions[:1] = last_of_prompt
        return positions


def _padded(sequences: Sequence[TokenSequence], targets: Tensor) -> PackedBatch:
    rows = [[*sequence.prompt_ids, *sequence.completion_ids[:-1]] for sequence in sequences]
    longest = max(map(len, rows))
    return PackedBatch(
        input_ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        position_ids=torch.arange(longest).expand(len(rows), longest),
        predicted_from=torch.cat(
            [
                torch.arange(len(sequence.completion_ids)) + (index * longest + len(sequence.prompt_ids) - 1)
                for index, sequence in enumerate(sequences)
            ]
        ),
        targets=targets,
        segments=None,
    )


def _by_prompt(sequences: Sequence[TokenSequence]) -> list[list[int]]:
    """Indices of the sequences, those with one prompt together, in the order in which the prompts come up."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, sequence in enumerate(sequences):
        groups.setdefault(sequence.prompt_ids, []).append(index)
    return list(groups.values())


def forward_passes(
    sequences: Sequence[TokenSequence], tokens_per_forward: int, layout: RowLayout = "packed"
) -> list[list[int]]:
    """Split sequences into forward passes of at most ``tokens_per_forward`` tokens, as :func:`pack` lays them out.

    Longest first, ties in their order, each pass filled before the next is begun: deterministic, and sequences of
    similar length share a pass, which is what keeps padding small. Sequences that share a prompt stay together while
    the budget lets them. A sequence longer than the budget gets its own pass.

    Args:
        sequences: What is to be scored.
        tokens_per_forward: The budget, at least 1. Padding counts; a shared prompt counts once.
        layout: That of every pass.

    Returns:
        Indices into ``sequences``, pass by pass; every index once.
    """
    if tokens_per_forward < 1:
        raise ValueError(f"tokens_per_forward must be at least 1; got {tokens_per_forward}")
    groups = _by_prompt(sequences) if layout == "shared" else [[index] for index in range(len(sequences))]
    units = [unit for group in groups for unit in _units(sequences, group, tokens_per_forward)]
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


def _units(sequences: Sequence[TokenSequence], group: Sequence[int], budget: int) -> list[tuple[int, list[int]]]:
    """Parts of a group with one prompt that fit the budget, with the tokens that each comes to."""
    units: list[tuple[int, list[int]]] = []
    for index in group:
        added = max(0, len(sequences[index].completion_ids) - 1)
        if units and units[-1][0] + added <= budget:
            units[-1] = (units[-1][0] + added, [*units[-1][1], index])
        else:
            units.append((sequences[index].num_input_tokens, [index]))
    return units


def microbatches(lengths: Sequence[int], tokens_per_forward: int, *, is_padded: bool = False) -> list[list[int]]:
    """As :func:`forward_passes`, by lengths alone."""
    sequences = [TokenSequence(prompt_ids=(0,) * length, completion_ids=()) for length in lengths]
    return forward_passes(sequences, tokens_per_forward, "padded" if is_padded else "packed")
