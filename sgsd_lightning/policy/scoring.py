"""From rollouts and teacher prompts to per-token scores: teachers without gradient, then the student once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sgsd_kernels import Implementation, Workload, resolve_implementation
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy.attention import row_layout
from sgsd_lightning.policy.loss_mask import LossMaskRule
from sgsd_lightning.policy.packing import PackedBatch, TokenSequence, forward_passes, pack
from sgsd_lightning.policy.precision import product_dtype
from sgsd_lightning.policy.score_method import HeadScores, StudentSupport, bind_score
from sgsd_lightning.policy.sharding import gathered_dtype, num_missing_passes
from sgsd_lightning.policy.teacher_weights import TeacherWeights
from sgsd_lightning.timing import PhaseTimer
from sgsd_lightning.types import Rollout, ScoreRequest, SupportScores, TokenScores


class Scorer:
    """Scores the sampled tokens under the student's prompt and under every teacher's.

    Args:
        teacher_tokens_per_forward: The most tokens in one forward pass of the teachers; bounds their memory, whatever
            the number of contexts. A longer sequence gets a pass of its own.
        head_implementation: How log-probabilities are computed from hidden states.
        timer: Is told how long the teachers and the student's forward pass took.
    """

    def __init__(
        self,
        teacher_tokens_per_forward: int = 16384,
        head_implementation: Implementation = "auto",
        timer: PhaseTimer | None = None,
    ) -> None:
        if teacher_tokens_per_forward < 1:
            raise ValueError(f"model.teacher_tokens_per_forward must be at least 1; got {teacher_tokens_per_forward}")
        self.teacher_tokens_per_forward = teacher_tokens_per_forward
        self.head_implementation = head_implementation
        self.timer = timer or PhaseTimer()
        self.token_counts: dict[str, TokenCount] = {}
        """What the last call sent through the model, for ``teachers`` and ``student``."""

    def resolve_head(self, model: PreTrainedModel) -> str:
        """The implementation that log-probabilities of ``model`` will be computed by, under the current autocast.

        Raises:
            ValueError: when the one asked for cannot run on the model's device or dtype.
        """
        weight = model.get_output_embeddings().weight
        dtype = gathered_dtype(model) or product_dtype(weight)
        hidden = torch.empty(0, weight.shape[-1], dtype=dtype, device=model.device)
        workload = Workload.of("linear_logprob", hidden)
        try:
            return resolve_implementation(self.head_implementation, workload)
        except ValueError as error:
            raise ValueError(f"model.head_implementation: {error}") from None

    def score(
        self,
        student_model: PreTrainedModel,
        teacher_weights: TeacherWeights,
        rollouts: Sequence[Rollout],
        teacher_prompts: Sequence[Sequence[tuple[int, ...]]],
        context_weights: Sequence[Sequence[float]],
        loss_mask_rule: LossMaskRule,
        request: ScoreRequest,
    ) -> TokenScores:
        """Score B rollouts under K_b teacher contexts each; K is the largest K_b, T the longest completion.

        ``student_logprob`` always carries a gradient path to every trainable parameter, also when there is nothing to
        score (the path's value is 0), so that all processes can run the same backward pass.

        Args:
            student_model: The policy; runs once, on one packed row.
            teacher_weights: Gives the model that teaches.
            rollouts: What was sampled.
            teacher_prompts: Per rollout, the ids of each of its teachers' prompts; may be empty.
            context_weights: Per rollout, the weight of each of them.
            loss_mask_rule: Which tokens count.
            request: What the objective needs.

        Raises:
            ValueError: when prompts and weights do not match, or a prompt is empty.
        """
        _check_rows(rollouts, teacher_prompts, context_weights)
        device = student_model.device
        grid = _Grid(rollouts, max(map(len, teacher_prompts), default=0), device)
        self.token_counts = {}
        with self.timer("teachers"), torch.no_grad(), teacher_weights.activate(student_model) as teacher_model:
            teachers = self._score_teachers(teacher_model, grid, teacher_prompts, request)
        # autocast in older versions of torch hands the casts made without gradient to the pass that needs one
        torch.clear_autocast_cache()
        with self.timer("student_forward"):
            student = self._score_student(student_model, grid, teachers.support, request)
        return TokenScores(
            student_logprob=student.logprob,
            teacher_logprob=teachers.logprob,
            completion_mask=grid.completion_mask(),
            loss_mask=grid.loss_mask(loss_mask_rule),
            context_weight=grid.context_weight(context_weights),
            student_entropy=student.entropy,
            teacher_entropy=teachers.entropy,
            support=None
            if teachers.support is None or student.support_logprob is None
            else SupportScores(
                teacher_logprob=teachers.support.logprob,
                student_logprob=student.support_logprob,
                target_slot=teachers.support.target_slot,
            ),
        )

    def _score_teachers(
        self,
        model: PreTrainedModel,
        grid: _Grid,
        prompts: Sequence[Sequence[tuple[int, ...]]],
        request: ScoreRequest,
    ) -> _TeacherScores:
        """All teachers of all rollouts together, a bounded number of tokens at a time."""
        scores = _TeacherScores(grid, request)
        places = [
            (row, column)
            for row, row_prompts in enumerate(prompts)
            for column in range(len(row_prompts))
            if grid.rollouts[row].completion_ids
        ]
        sequences = [
            TokenSequence(prompt_ids=prompts[row][column], completion_ids=grid.rollouts[row].completion_ids)
            for row, column in places
        ]
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
            )
            scores.put(grid.context_cells([places[index] for index in indices]), head_scores)
        for _ in range(num_missing):
            model.score(_nothing(model), implementation=self.head_implementation)
        return scores

    def _score_student(
        self, model: PreTrainedModel, grid: _Grid, support: _TeacherSupports | None, request: ScoreRequest
    ) -> _StudentScores:
        bind_score(model)
        rows = [row for row, rollout in enumerate(grid.rollouts) if rollout.completion_ids]
        if not rows:
            return self._score_nothing(model, grid, support, request)
        sequences = [
            TokenSequence(prompt_ids=grid.rollouts[row].prompt_ids, completion_ids=grid.rollouts[row].completion_ids)
            for row in rows
        ]
        cells = grid.cells(rows)
        head_scores = model.score(
            self._batch("student", sequences, model),
            implementation=self.head_implementation,
            entropy=request.entropy,
            support=None if support is None else support.at(cells),
        )
        entropy, support_logprob = head_scores.entropy, head_scores.support_logprob
        return _StudentScores(
            logprob=grid.scatter(cells, head_scores.logprob),
            entropy=None if entropy is None else grid.scatter(cells, entropy.detach()),
            support_logprob=None
            if support is None or support_logprob is None
            else support.scatter(cells, support_logprob),
        )

    def _score_nothing(
        self, model: PreTrainedModel, grid: _Grid, support: _TeacherSupports | None, request: ScoreRequest
    ) -> _StudentScores:
        """No completion has a token: the graph of one made-up token, times zero."""
        nothing = 0.0 * model.score(_nothing(model), implementation=self.head_implementation).logprob.sum()
        zeros = grid.zeros()
        return _StudentScores(
            logprob=zeros + nothing,
            entropy=zeros.clone() if request.entropy else None,
            support_logprob=None if support is None else support.logprob + nothing,
        )

    def _batch(self, who: str, sequences: Sequence[TokenSequence], model: PreTrainedModel) -> PackedBatch:
        batch = _batch(sequences, model)
        self.token_counts[who] = self.token_counts.get(who, TokenCount()) + TokenCount.of(sequences, batch)
        return batch


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCount:
    """What went through the model in one or several forward passes."""

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


class _Grid:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _StudentScores:
    logprob: Tensor
    entropy: Tensor | None
    support_logprob: Tensor | None


class _TeacherScores:
    """[B, K, T] scores, filled micro-batch by micro-batch."""

    def __init__(self, grid: _Grid, request: ScoreRequest) -> None:
        shape = (len(grid.rollouts), grid.num_contexts, grid.num_tokens)
        self.logprob = torch.zeros(shape, device=grid.device)
        self.entropy = torch.zeros(shape, device=grid.device) if request.entropy else None
        num_slots = request.support_top_k + 1
        self.support = _TeacherSupports(shape, num_slots, grid.device) if request.support_top_k > 0 else None

    def put(self, cells: Tensor, scores: HeadScores) -> None:
        self.logprob.view(-1).index_copy_(0, cells, scores.logprob.float())
        if self.entropy is not None and scores.entropy is not None:
            self.entropy.view(-1).index_copy_(0, cells, scores.entropy.float())
        if self.support is not None:
            self.support.put(cells, scores)


class _TeacherSupports:
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


def _batch(sequences: Sequence[TokenSequence], model: PreTrainedModel) -> PackedBatch:
    return pack(sequences, row_layout(model.config)).to(model.device)


def _nothing(model: PreTrainedModel) -> PackedBatch:
    """One made-up token, for a pass that only keeps step with other processes."""
    return _batch([TokenSequence(prompt_ids=(0,), completion_ids=(0,))], model)


def _check_rows(
    rollouts: Sequence[Rollout],
    prompts: Sequence[Sequence[tuple[int, ...]]],
    weights: Sequence[Sequence[float]],
) -> None:
    if not len(rollouts) == len(prompts) == len(weights):
        raise ValueError(
            f"rollouts, teacher_prompts and context_weights must have one entry a rollout; got {len(rollouts)}, "
            f"{len(prompts)} and {len(weights)}"
        )
    for row, (row_prompts, row_weights) in enumerate(zip(prompts, weights, strict=True)):
        if len(row_prompts) != len(row_weights):
            raise ValueError(
                f"rollout {row} has {len(row_prompts)} teacher prompts but {len(row_weights)} context weights"
            )
