"""From rows of token sequences to per-token scores: teachers without gradient, then the student once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from sgsd_kernels import Implementation, Workload, resolve_implementation
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sgsd_lightning.distributed.sharding import gathered_dtype, num_missing_passes
from sgsd_lightning.metrics.timing import PhaseTimer
from sgsd_lightning.scoring.attention import row_layout
from sgsd_lightning.scoring.forward import bind_score, layer_features
from sgsd_lightning.scoring.layout import PaddedLayout, TeacherScores
from sgsd_lightning.scoring.packing import PackedBatch, forward_passes, pack
from sgsd_lightning.scoring.precision import product_dtype
from sgsd_lightning.scoring.token_count import TokenCount
from sgsd_lightning.types import ScoreRequest, ScoreRow, SupportScores, TokenScores, TokenSequence
from sgsd_lightning.types.arguments import require_at_least


class TeacherModel(Protocol):
    """What the scorer needs of a teacher; `PolicyView` implements it."""

    def activate(self, model: PreTrainedModel) -> AbstractContextManager[PreTrainedModel]: ...

    def shares_head(self, model: PreTrainedModel) -> bool: ...


class Scorer:
    """Scores the sampled ids in the student's sequences and in every teacher's. It knows ids only, no texts.

    Args:
        teacher_tokens_per_forward: The most tokens in one forward pass of the teachers; bounds their memory, whatever
            the number of contexts. A longer sequence gets a pass of its own.
        head_implementation: How log-probabilities are computed from hidden states.
        timer: Measures the teachers' and the student's forward passes.
    """

    def __init__(
        self,
        teacher_tokens_per_forward: int = 16384,
        head_implementation: Implementation = "auto",
        timer: PhaseTimer | None = None,
    ) -> None:
        require_at_least(1, "scoring.teacher_tokens_per_forward", teacher_tokens_per_forward)
        self.teacher_tokens_per_forward = teacher_tokens_per_forward
        self.head_implementation = head_implementation
        self.timer = timer or PhaseTimer()
        self.token_counts: dict[str, TokenCount] = {}
        """Token counts of the last call, for ``teachers`` and ``student``."""

    def resolve_head(self, model: PreTrainedModel) -> str:
        """Return the implementation that computes log-probabilities of ``model`` under the current autocast.

        Raises:
            ValueError: if the chosen one cannot run on the model's device or dtype.
        """
        weight = model.get_output_embeddings().weight
        dtype = gathered_dtype(model) or product_dtype(weight)
        hidden = torch.empty(0, weight.shape[-1], dtype=dtype, device=model.device)
        workload = Workload.of("linear_logprob", hidden)
        try:
            return resolve_implementation(self.head_implementation, workload)
        except ValueError as error:
            raise ValueError(f"scoring.head_implementation: {error}") from None

    def score(
        self,
        student_model: PreTrainedModel,
        teacher: TeacherModel,
        rows: Sequence[ScoreRow],
        request: ScoreRequest,
    ) -> TokenScores:
        """Score B rows under K_b teachers each; K is the largest K_b, T the most ids of a row.

        ``student_logprob`` always carries a gradient path to every trainable parameter, also when there is nothing to
        score (the path's value is 0), so that all processes can run the same backward pass.

        Args:
            student_model: The policy; runs once, on one packed row.
            teacher: Gives the model that teaches.
            rows: The sampled ids, and the sequences of student and teachers.
            request: What the objective needs.
        """
        grid = PaddedLayout(rows, student_model.device)
        self.token_counts = {}
        with self.timer("teachers"), torch.no_grad(), teacher.activate(student_model) as teacher_model:
            teachers = self._score_teachers(teacher_model, grid, request)
            if request.divergence is not None:
                teachers.head_weight = own_head(teacher, teacher_model)
        loss_mask = grid.loss_mask()
        weights = grid.context_weight()
        # autocast in older versions of torch hands the casts made without gradient to the pass that needs one
        torch.clear_autocast_cache()
        with self.timer("student_forward"):
            student = self._score_student(student_model, grid, teachers, loss_mask, weights, request)
        return TokenScores(
            student_logprob=student.logprob,
            teacher_logprob=teachers.logprob,
            completion_mask=grid.completion_mask(),
            loss_mask=loss_mask,
            context_weight=weights,
            group=grid.group(),
            step_index=grid.step_index(),
            sampled_logprob=grid.sampled_logprob(),
            student_entropy=student.entropy,
            teacher_entropy=teachers.entropy,
            support=None
            if teachers.support is None or student.support_logprob is None
            else SupportScores(
                teacher_logprob=teachers.support.logprob,
                student_logprob=student.support_logprob,
                target_slot=teachers.support.target_slot,
            ),
            divergence=student.divergence,
        )

    @torch.no_grad()
    def features(self, model: PreTrainedModel, sequences: Sequence[TokenSequence], layers: Sequence[int]) -> Tensor:
        """[layers, N, D] float32: hidden states at the positions that predict the N targets, in order.

        Args:
            model: The policy, whole on its device.
            sequences: At least one.
            layers: Outputs of these layers; 0 is the embedding, -1 what the head reads, after the final norm.
        """
        passes = forward_passes(sequences, self.teacher_tokens_per_forward, row_layout(model.config))
        starts = [0, *accumulate(len(sequence.targets) for sequence in sequences)]
        found: Tensor | None = None
        for indices in passes:
            values = layer_features(model, _batch([sequences[index] for index in indices], model), layers)
            places = torch.cat([torch.arange(starts[index], starts[index + 1]) for index in indices]).to(values.device)
            if found is None:
                found = values.new_zeros(len(layers), starts[-1], values.shape[-1])
            found[:, places] = values
        assert found is not None
        return found

    def _score_teachers(self, model: PreTrainedModel, grid: PaddedLayout, request: ScoreRequest) -> TeacherScores:
        """Score all teachers of all rows together, a bounded number of tokens per pass."""
        scores = TeacherScores(grid, request)
        pieces = grid.teacher_pieces()
        sequences = [piece.sequence for piece in pieces]
        bind_score(model)
        passes = forward_passes(sequences, self.teacher_tokens_per_forward, row_layout(model.config))
        # agreed upon before the first pass, which already waits for the other processes
        num_missing = num_missing_passes(model, len(passes), grid.device)
        for indices in passes:
            batch = self._batch("teachers", [sequences[index] for index in indices], model)
            head_scores = model.score(
                batch,
                implementation=self.head_implementation,
                entropy=request.entropy,
                support_top_k=max(0, request.support_top_k),
                keeps_hidden=request.divergence is not None,
            )
            scores.put(grid.context_cells([pieces[index] for index in indices]), head_scores)
        for _ in range(num_missing):
            model.score(_nothing(model), implementation=self.head_implementation)
        return scores

    def _score_student(
        self,
        model: PreTrainedModel,
        grid: PaddedLayout,
        teachers: TeacherScores,
        loss_mask: Tensor,
        context_weight: Tensor,
        request: ScoreRequest,
    ) -> _StudentScores:
        bind_score(model)
        support = teachers.support
        pieces = grid.student_pieces()
        if not pieces:
            return self._score_nothing(model, grid, teachers, request)
        sequences = [piece.sequence for piece in pieces]
        cells = grid.cells(pieces)
        asked = request.divergence
        compared = None if asked is None else teachers.divergence_at(cells, loss_mask, context_weight, asked)
        head_scores = model.score(
            self._batch("student", sequences, model),
            implementation=self.head_implementation,
            entropy=request.entropy,
            support=None if support is None else support.at(cells),
            divergence=compared,
        )
        entropy, support_logprob, divergence = head_scores.entropy, head_scores.support_logprob, head_scores.divergence
        return _StudentScores(
            logprob=grid.scatter(cells, head_scores.logprob),
            entropy=None if entropy is None else grid.scatter(cells, entropy.detach()),
            support_logprob=None
            if support is None or support_logprob is None
            else support.scatter(cells, support_logprob),
            divergence=None
            if asked is None
            # without a teacher the graph is there all the same, with the value 0
            else grid.scatter(cells, 0.0 * head_scores.logprob if divergence is None else divergence),
        )

    def _score_nothing(
        self, model: PreTrainedModel, grid: PaddedLayout, teachers: TeacherScores, request: ScoreRequest
    ) -> _StudentScores:
        """Return scores for completions without a token: a graph over one dummy token, times zero."""
        nothing = 0.0 * model.score(_nothing(model), implementation=self.head_implementation).logprob.sum()
        zeros = grid.zeros()
        return _StudentScores(
            logprob=zeros + nothing,
            entropy=zeros.clone() if request.entropy else None,
            support_logprob=None if teachers.support is None else teachers.support.logprob + nothing,
            divergence=None if request.divergence is None else zeros + nothing,
        )

    def _batch(self, who: str, sequences: Sequence[TokenSequence], model: PreTrainedModel) -> PackedBatch:
        batch = _batch(sequences, model)
        self.token_counts[who] = self.token_counts.get(who, TokenCount()) + TokenCount.of(sequences, batch)
        return batch


@dataclass(frozen=True, kw_only=True, slots=True)
class _StudentScores:
    logprob: Tensor
    entropy: Tensor | None
    support_logprob: Tensor | None
    divergence: Tensor | None


def own_head(teacher: TeacherModel, model: PreTrainedModel) -> Tensor | None:
    """Return a copy [V, D] of the teacher's head, within `activate`; None if the student's is the same.

    Raises:
        ValueError: if it is sharded.
    """
    weight = model.get_output_embeddings().weight
    if teacher.shares_head(model):
        return None
    if isinstance(weight, DTensor):
        raise ValueError(
            "an objective that compares whole distributions needs the teacher's head beside the student's, which are "
            "one sharded tensor here: train with policy.lora, take LiveTeacher, or another strategy than fsdp2"
        )
    return weight.detach().to(product_dtype(weight)).clone()


def _batch(sequences: Sequence[TokenSequence], model: PreTrainedModel) -> PackedBatch:
    return pack(sequences, row_layout(model.config)).to(model.device)


def _nothing(model: PreTrainedModel) -> PackedBatch:
    """Return a batch of one dummy token, for a pass that only keeps step with other processes."""
    return _batch([TokenSequence.causal((0,), (0,))], model)
