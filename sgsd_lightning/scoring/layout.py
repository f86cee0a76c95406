"""The padded layouts that per-token scalars are scattered to: [B, T] for the student, [B, K, T] for its teachers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sgsd_lightning.scoring.forward import HeadScores, StudentDivergence, StudentSupport
from sgsd_lightning.scoring.loss_mask import LossMaskRule
from sgsd_lightning.types import DivergenceRequest, Rollout, ScoreRequest


class PaddedLayout:
    """The padded [B, T] and [B, K, T] layouts that scalars are scattered to.

    A cell is an index into the flattened layout.
    """

    def __init__(self, rollouts: Sequence[Rollout], num_contexts: int, device: torch.device) -> None:
        self.rollouts = rollouts
        self.num_contexts = num_contexts
        self.device = device
        self.num_tokens = max((len(rollout.completion_ids) for rollout in rollouts), default=0)

    def zeros(self) -> Tensor:
        """[B, T] float32."""
        return torch.zeros(len(self.rollouts), self.num_tokens, device=self.device)

    def cells(self, rows: Sequence[int]) -> Tensor:
        """[N] int64: where the tokens of these rollouts are in [B, T]."""
        return self._spans([(row, len(self.rollouts[row].completion_ids)) for row in rows])

    def context_cells(self, places: Sequence[tuple[int, int]]) -> Tensor:
        """[N] int64: where the tokens of these (rollout, context) pairs are in [B, K, T]."""
        return self._spans(
            [(row * self.num_contexts + column, len(self.rollouts[row].completion_ids)) for row, column in places]
        )

    def _spans(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        parts = [torch.arange(length) + start * self.num_tokens for start, length in spans]
        return torch.cat(parts).to(self.device)

    def scatter(self, cells: Tensor, values: Tensor) -> Tensor:
        """[B, T]: values at their cells, 0 elsewhere; differentiable in the values."""
        return self.zeros().flatten().index_copy(0, cells, values.float()).view(len(self.rollouts), self.num_tokens)

    def problem_index(self) -> Tensor:
        """[B] int64: rollouts of one problem have one number."""
        numbers: dict[str, int] = {}
        index = [numbers.setdefault(rollout.problem.problem_id, len(numbers)) for rollout in self.rollouts]
        return torch.tensor(index, dtype=torch.int64, device=self.device)

    def sampled_logprob(self) -> Tensor:
        """[B, T] float32: what the policy gave the tokens when it sampled them; 0 elsewhere."""
        padded = torch.zeros(len(self.rollouts), self.num_tokens)
        for row, rollout in zip(padded, self.rollouts, strict=True):
            row[: len(rollout.logprobs)] = rollout.logprobs
        return padded.to(self.device)

    def completion_mask(self) -> Tensor:
        return self._padded_mask([torch.ones(len(r.completion_ids), dtype=torch.bool) for r in self.rollouts])

    def loss_mask(self, rule: LossMaskRule) -> Tensor:
        return self._padded_mask([rule(rollout) for rollout in self.rollouts])

    def context_weight(self, weights: Sequence[Sequence[float]]) -> Tensor:
        """[B, K] float32."""
        rows = [[*row, *[0.0] * (self.num_contexts - len(row))] for row in weights]
        return torch.tensor(rows, device=self.device).reshape(len(rows), self.num_contexts)

    def _padded_mask(self, rows: Sequence[Tensor]) -> Tensor:
        mask = torch.zeros(len(rows), self.num_tokens, dtype=torch.bool)
        for padded, row in zip(mask, rows, strict=True):
            padded[: len(row)] = row
        return mask.to(self.device)


class TeacherScores:
    """[B, K, T] scores, filled micro-batch by micro-batch."""

    def __init__(self, grid: PaddedLayout, request: ScoreRequest) -> None:
        shape = (len(grid.rollouts), grid.num_contexts, grid.num_tokens)
        self.logprob = torch.zeros(shape, device=grid.device)
        self.entropy = torch.zeros(shape, device=grid.device) if request.entropy else None
        self.hidden: Tensor | None = None
        """[B, K, T, D] where the objective compares distributions and a teacher was scored."""
        self.head_weight: Tensor | None = None
        """[V, D], the teachers' own head; None where it is the student's."""
        self._shape = shape
        num_slots = request.support_top_k + 1
        self.support = TeacherSupports(shape, num_slots, grid.device) if request.support_top_k > 0 else None

    def put(self, cells: Tensor, scores: HeadScores) -> None:
        self.logprob.view(-1).index_copy_(0, cells, scores.logprob.float())
        if self.entropy is not None and scores.entropy is not None:
            self.entropy.view(-1).index_copy_(0, cells, scores.entropy.float())
        if self.support is not None:
            self.support.put(cells, scores)
        if scores.hidden is not None:
            if self.hidden is None:
                self.hidden = scores.hidden.new_zeros(*self._shape, scores.hidden.shape[-1])
            self.hidden.view(-1, self.hidden.shape[-1]).index_copy_(0, cells, scores.hidden)

    def divergence_at(
        self, cells: Tensor, mask: Tensor, context_weight: Tensor, request: DivergenceRequest
    ) -> StudentDivergence | None:
        """What the student is compared with at cells of [B, T]; None where no teacher was scored."""
        if self.hidden is None:
            return None
        num_contexts, num_tokens = self._shape[1:]
        mixture = context_weight[cells // num_tokens]  # [N, K]
        has_teacher = mixture.sum(-1) > 0
        # a row without a teacher is masked, but its weights must still be weights
        mixture = torch.where(has_teacher[:, None], mixture, 1.0 / num_contexts)
        return StudentDivergence(
            hidden=self.hidden.permute(1, 0, 2, 3).flatten(1, 2)[:, cells],
            weight=self.head_weight,
            mixture=mixture / mixture.sum(-1, keepdim=True),
            mask=mask.flatten()[cells] & has_teacher,
            request=request,
        )


class TeacherSupports:
    """[B, K, T, S] supports. Where there is no token, slot 0 alone is in use: its log-probability is 0."""

    def __init__(self, shape: tuple[int, int, int], num_slots: int, device: torch.device) -> None:
        self.shape = (*shape, num_slots)
        self.ids = torch.zeros(self.shape, dtype=torch.int64, device=device)
        self.logprob = torch.full(self.shape, -torch.inf, device=device)
        self.logprob[..., 0] = 0.0
        self.target_slot = torch.zeros(shape, dtype=torch.int64, device=device)

    def put(self, cells: Tensor, scores: HeadScores) -> None:
        if scores.support_ids is None or scores.support_logprob is None or scores.target_slot is None:
            raise RuntimeError("a teacher was scored without its support")
        self.ids.view(-1, self.shape[-1]).index_copy_(0, cells, scores.support_ids)
        self.logprob.view(-1, self.shape[-1]).index_copy_(0, cells, scores.support_logprob.float())
        self.target_slot.view(-1).index_copy_(0, cells, scores.target_slot)

    def at(self, cells: Tensor) -> StudentSupport:
        """The supports at cells of [B, T]: [N, K, S]."""
        ids, logprob = self._by_token(self.ids)[cells], self._by_token(self.logprob)[cells]
        return StudentSupport(ids=ids, mask=logprob > -torch.inf)

    def scatter(self, cells: Tensor, values: Tensor) -> Tensor:
        """[B, K, T, S] from the student's [N, K, S] at cells of [B, T]; differentiable in the values."""
        batch, contexts, tokens, slots = self.shape
        empty = torch.full((batch * tokens, contexts, slots), -torch.inf, device=values.device)
        empty[..., 0] = 0.0
        filled = empty.index_copy(0, cells, values.float())
        return filled.view(batch, tokens, contexts, slots).transpose(1, 2)

    def _by_token(self, values: Tensor) -> Tensor:
        return values.transpose(1, 2).flatten(0, 1)  # [B * T, K, S]
