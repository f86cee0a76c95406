"""Counts the tokens that went through the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgsd_lightning.scoring.packing import PackedBatch
from sgsd_lightning.types import TokenSequence


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCount:
    """Token counts of one or several forward passes."""

    lengths: tuple[int, ...] = ()
    """Input tokens of each sequence, as if it ran alone."""
    num_run: int = 0
    """Positions that the layers computed: padding included, a prompt that completions share once."""
    num_padded: int = 0
    """Padding among them."""
    num_predicted: int = 0
    """Positions that reached the head."""

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence], batch: PackedBatch) -> TokenCount:
        lengths = tuple(sequence.num_input_tokens for sequence in sequences)
        return cls(
            lengths=lengths,
            num_run=batch.input_ids.numel(),
            num_padded=max(0, batch.input_ids.numel() - sum(lengths)),
            num_predicted=batch.targets.numel(),
        )

    def __add__(self, other: TokenCount) -> TokenCount:
        return TokenCount(
            lengths=self.lengths + other.lengths,
            num_run=self.num_run + other.num_run,
            num_padded=self.num_padded + other.num_padded,
            num_predicted=self.num_predicted + other.num_predicted,
        )
