"""The padded layouts that per-token scalars are scattered to: [B, T] for the student, [B, K, T] for its teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sgsd_lightning.distributed.uploads import to_device, upload
from sgsd_lightning.scoring.forward import HeadScores, StudentDivergence, StudentSupport
from sgsd_lightning.types import DivergenceRequest, ScoreRequest, ScoreRow, TokenSequence


class Piece(NamedTuple):
    """One token sequence of a row, and where its targets lie among the row's T ids."""

    row: int
    context: int
    """Which of the row's teachers; 0 for the student."""
    start: int
    sequence: TokenSequence


class PaddedLayout:
    """The padded [B, T] and [B, K, T] layouts that scalars are scattered to.

    A cell is an index into the flattened layout.

    Args:
        rows: B of them.
        device: Of the tensors.
    """

    def __init__(self, rows: Sequence[ScoreRow], device: torch.device) -> None:
        self.rows = rows
        self.num_contexts = max((len(row.teachers) for row in rows), default=0)
        self.num_tokens = max((len(row.targets) for row in rows), default=0)
        self.device = device

    def student_pieces(self) -> list[Piece]:
        """The student's sequences that predict something, row by row."""
        return [piece for index, row in enumerate(self.rows) for piece in _pieces(index, 0, row.student)]

    def teacher_pieces(self) -> list[Piece]:
        """The teachers' sequences that predict something, row by row and teacher by teacher."""
        return [
            piece
            for index, row in enumerate(self.rows)
            for context, sequences in enumerate(row.teachers)
            for piece in _pieces(index, context, sequences)
        ]

    def cells(self, pieces: Sequence[Piece]) -> Tensor:
        """[N] int64: where the targets of these sequences are in [B, T]."""
        return self._spans([(piece.row, piece) for piece in pieces])

    def context_cells(self, pieces: Sequence[Piece]) -> Tensor:
        """[N] int64: where the targets of these teachers' sequences are in [B, K, T]."""
        return self._spans([(piece.row * self.num_contexts + piece.context, piece) for piece in pieces])

    def _spans(self, spans: Sequence[tuple[int, Piece]]) -> Tensor:
        parts = [
            torch.arange(len(piece.sequence.targets)) + line * self.num_tokens + piece.start for line, piece in spans
        ]
        return to_device(torch.cat(parts), self.device)

    def zeros(self) -> Tensor:
        """[B, T] float32."""
        return torch.zeros(len(self.rows), self.num_tokens, device=self.device)

    def scatter(self, cells: Tensor, values: Tensor) -> Tensor:
        """[B, T]: values at their cells, 0 elsewhere; differentiable in the values."""
        return self.zeros().flatten().index_copy(0, cells, values.float()).view(len(self.rows), self.num_tokens)

    def group(self) -> Tensor:
        """[B] int64."""
        return upload([row.group for row in self.rows], torch.int64, self.device)

    def completion_mask(self) -> Tensor:
        """[B, T] bool."""
        return self._padded([torch.ones(len(row.targets), dtype=torch.bool) for row in self.rows], torch.bool)

    def loss_mask(self) -> Tensor:
        """[B, T] bool."""
        return self._padded([row.loss_mask for row in self.rows], torch.bool)

    def sampled_logprob(self) -> Tensor:
        """[B, T] float32: what the policy gave the tokens when it sampled them; 0 elsewhere."""
        return self._padded([row.sampled_logprob for row in self.rows], torch.float32)

    def step_index(self) -> Tensor:
        """[B, T] int64."""
        return self._padded([row.step_index for row in self.rows], torch.int64)

    def context_weight(self) -> Tensor:
        """[B, K] float32."""
        rows = [[*row.context_weight, *[0.0] * (self.num_contexts - len(row.context_weight))] for row in self.rows]
        return upload(rows, torch.float32, self.device).reshape(len(rows), self.num_contexts)

    def _padded(self, rows: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        values = torch.zeros(len(rows), self.num_tokens, dtype=dtype)
        for padded, row in zip(values, rows, strict=True):
            padded[: len(row)] = row
        return to_device(values, self.device)


def _pieces(row: int, context: int, sequences: Sequence[TokenSequence]) -> Iterator[Piece]:
    start = 0
    for sequence in sequences:
        if sequence.targets:
            yield Piece(row, context, start, sequence)
        start += len(sequence.targets)


class TeacherScores:
    """[B, K, T] scores, filled micro-batch by micro-batch."""

    def __init__(self, grid: PaddedLayout, request: ScoreRequest) -> None:
        shape = (len(grid.rows), grid.num_contexts, grid.num_tokens)
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
