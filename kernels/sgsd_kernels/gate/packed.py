"""Rollouts that lie one behind the other, without padding."""

from __future__ import annotations

import torch
from torch import Tensor


def check_ragged(
    student: Tensor,
    teacher: Tensor,
    loss_mask: Tensor,
    rollout_offsets: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
) -> None:
    """Refuse packed rollouts whose parts do not fit: student [M, ...], teacher [K, M, ...], loss_mask [M].

    Raises:
        ValueError: naming the argument.
    """
    num_tokens = loss_mask.shape[0]
    num_rollouts = len(rollout_offsets) - 1
    if loss_mask.dim() != 1 or len(student) != num_tokens or teacher.shape[1:2] != loss_mask.shape:
        raise ValueError(
            f"the student's tokens must be [M], the teachers' [K, M] with loss_mask's M = {num_tokens}; "
            f"got {list(student.shape)} and {list(teacher.shape)}"
        )
    if context_weight.shape != (num_rollouts, len(teacher)) or outcome.shape != (num_rollouts,):
        raise ValueError(
            f"with {num_rollouts} rollouts and {len(teacher)} contexts, context_weight must be [B, K] and outcome [B]; "
            f"got {list(context_weight.shape)} and {list(outcome.shape)}"
        )
    if rollout_offsets.device.type == "cpu":
        bounds = rollout_offsets.tolist()
        if not bounds or bounds[0] != 0 or bounds[-1] != num_tokens or sorted(bounds) != bounds:
            raise ValueError(f"rollout_offsets must rise from 0 to M = {num_tokens}; got {bounds}")


class RaggedLayout:
    """Where M packed tokens of B rollouts are in a padded [B, T]."""

    def __init__(self, rollout_offsets: Tensor, num_tokens: int) -> None:
        self.lengths = rollout_offsets.diff()
        rows = torch.arange(len(self.lengths), device=rollout_offsets.device)
        self.rollout = torch.repeat_interleave(rows, self.lengths, output_size=num_tokens)
        """[M]: the rollout of each token."""
        self._offsets = rollout_offsets

    @property
    def longest(self) -> int:
        """T (one device synchronisation)."""
        return int(self.lengths.max()) if self.lengths.numel() else 0

    @property
    def place(self) -> Tensor:
        """[M]: index of each token in the flattened [B, T]."""
        step = torch.arange(len(self.rollout), device=self.rollout.device) - self._offsets[self.rollout]
        return self.rollout * self.longest + step

    def pad(self, values: Tensor) -> Tensor:
        """[..., M] to [..., B, T] with 0 elsewhere; differentiable in the values."""
        shape = (len(self.lengths), self.longest)
        padded = values.new_zeros(*values.shape[:-1], shape[0] * shape[1]).index_copy(-1, self.place, values)
        return padded.unflatten(-1, shape)
