"""What rows that are decoded together feed to their next token, kept on the model's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RowInputs:
    """The random numbers and the last tokens of B rows, so that a token needs no upload."""

    uniforms: Tensor
    """[B, S] float64 in [0, 1): one per token that a row may sample."""
    num_sampled: Tensor
    """[B, 1] int64."""
    last_ids: Tensor
    """[B] int64; of no meaning while nothing is sampled."""

    @classmethod
    def of(cls, uniforms: Tensor) -> RowInputs:
        """Return the inputs of rows without a token, from their [B, S] numbers on their device."""
        nothing = torch.zeros(len(uniforms), 1, dtype=torch.int64, device=uniforms.device)
        return cls(uniforms=uniforms, num_sampled=nothing, last_ids=nothing[:, 0])

    @property
    def next_uniforms(self) -> Tensor:
        """[B] float64: each row's number for its next token."""
        return self.uniforms.gather(1, self.num_sampled)[:, 0]

    def followed_by(self, ids: Tensor) -> RowInputs:
        """Return the inputs after ``ids`` [B] int64 were sampled."""
        return RowInputs(uniforms=self.uniforms, num_sampled=self.num_sampled + 1, last_ids=ids)

    def select(self, index: Tensor) -> RowInputs:
        """Return those of the rows ``index`` [B'] int64."""
        return RowInputs(
            uniforms=self.uniforms[index], num_sampled=self.num_sampled[index], last_ids=self.last_ids[index]
        )

    def joined_by(self, others: RowInputs) -> RowInputs:
        """Return those of these rows and of ``others`` after them."""
        return RowInputs(
            uniforms=torch.cat([self.uniforms, others.uniforms]),
            num_sampled=torch.cat([self.num_sampled, others.num_sampled]),
            last_ids=torch.cat([self.last_ids, others.last_ids]),
        )
