"""Token sequences to model inputs: packed into one row without padding, or padded where packing is not possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSequence:
    """A prompt and the completion whose tokens are to be scored under it."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    @property
    def num_input_tokens(self) -> int:
        """Tokens that the model reads: all but the last one, which predicts nothing that is asked for."""
        return max(1, len(self.prompt_ids) + len(self.completion_ids) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """Model inputs of several sequences, and where their completion tokens are predicted.

    ``N`` is the number of completion tokens of all sequences, in the order of the sequences.
    """

    input_ids: Tensor
    """[1, L] int64 when packed, [sequences, longest] when padded on the right."""
    position_ids: Tensor
    """Same shape; starts at 0 with every sequence."""
    predicted_from: Tensor
    """[N] int64: index into the flattened inputs of the position that predicts each completion token."""
    targets: Tensor
    """[N] int64: the completion tokens."""
    segment_starts: Tensor | None
    """[sequences + 1] int32, cumulative lengths (``cu_seqlens``) when packed, None when padded."""
    longest: int
    """Input tokens of the longest sequence."""

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on ``device``."""
        return PackedBatch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            predicted_from=self.predicted_from.to(device),
            targets=self.targets.to(device),
            segment_starts=None if self.segment_starts is None else self.segment_starts.to(device),
            longest=self.longest,
        )

    def attention_arguments(self) -> dict[str, Any]:
        """What a variable-length attention needs to keep the segments apart, by the names transformers gives it."""
        if self.segment_starts is None:
            return {}
        return {
            "cu_seq_lens_q": self.segment_starts,
            "cu_seq_lens_k": self.segment_starts,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
        }


def pack(sequences: Sequence[TokenSequence], *, is_padded: bool = False) -> PackedBatch:
    """Lay out sequences for one forward pass, on the CPU.

    Args:
        sequences: At least one.
        is_padded: One row a sequence, padded on the right, for attention that cannot keep packed sequences apart.
            Under a causal mask no real token sees the padding, so that no attention mask is needed.

    Raises:
        ValueError: for no sequences, or for an empty prompt, after which a first token has no prediction.
    """
    if not sequences:
        raise ValueError("pack needs at least one sequence")
    if any(not sequence.prompt_ids for sequence in sequences):
        raise ValueError("a prompt to score under has no tokens; it needs at least one, to predict the first from")
    rows = [_inputs(sequence) for sequence in sequences]
    longest = max(map(len, rows))
    if is_padded:
        starts = [longest * index for index in range(len(rows))]
        input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        position_ids = torch.arange(longest).expand(len(rows), longest)
        boundaries = None
    else:
        starts = list(accumulate(map(len, rows), initial=0))
        input_ids = torch.tensor([[token_id for row in rows for token_id in row]])
        position_ids = torch.cat([torch.arange(len(row)) for row in rows])[None]
        boundaries = torch.tensor(starts, dtype=torch.int32)
    return PackedBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        predicted_from=torch.cat(
            [_predicting_positions(sequence) + start for sequence, start in zip(sequences, starts, strict=False)]
        ),
        targets=torch.tensor([i for sequence in sequences for i in sequence.completion_ids], dtype=torch.int64),
        segment_starts=boundaries,
        longest=longest,
    )


def _inputs(sequence: TokenSequence) -> list[int]:
    return [*sequence.prompt_ids, *sequence.completion_ids][: sequence.num_input_tokens]


def _predicting_positions(sequence: TokenSequence) -> Tensor:
    return torch.arange(len(sequence.completion_ids)) + (len(sequence.prompt_ids) - 1)


def microbatches(lengths: Sequence[int], tokens_per_forward: int, *, is_padded: bool = False) -> list[list[int]]:
    """Split sequences into forward passes of at most ``tokens_per_forward`` tokens.

    Longest first, ties in their order, each pass filled before the next is begun: deterministic, and sequences of
    similar length share a pass, which is what keeps padding small. A sequence longer than the budget gets its own.

    Args:
        lengths: Input tokens of each sequence.
        tokens_per_forward: The budget, at least 1.
        is_padded: Count the padding too.

    Returns:
        Indices into ``lengths``, pass by pass; every index once.
    """
    if tokens_per_forward < 1:
        raise ValueError(f"tokens_per_forward must be at least 1; got {tokens_per_forward}")
    passes: list[list[int]] = []
    num_tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        # the first of a pass is its longest, which is what padding fills every row up to
        cost = lengths[passes[-1][0]] if passes and is_padded else lengths[index]
        if not passes or num_tokens + cost > tokens_per_forward:
            passes.append([])
            num_tokens, cost = 0, lengths[index]
        passes[-1].append(index)
        num_tokens += cost
    return passes
