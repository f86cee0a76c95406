"""A learner: one policy and all that is its own. It samples, is judged, is taught and has a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from sgsd_kernels import Implementation
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.distributed.processes import num_processes, sum_over_processes
from sgsd_lightning.metrics.measurements import Measurement, Total
from sgsd_lightning.metrics.timing import PhaseTimer
from sgsd_lightning.objectives import Objective
from sgsd_lightning.policy import LiveTeacher, PolicySource, PolicyView
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.rollouts import Rollouter
from sgsd_lightning.rollouts.ahead import RolloutsAhead
from sgsd_lightning.scoring import LossMaskRule, Scorer
from sgsd_lightning.scoring.token_count import TokenCount
from sgsd_lightning.seeding import DEFAULT_POLICY
from sgsd_lightning.training.contracts import check_contexts, check_result, judge
from sgsd_lightning.training.step_metrics import (
    objective_metrics,
    rollout_metrics,
    sampler_metrics,
    score_metrics,
    token_metrics,
)
from sgsd_lightning.training.step_record import record_step
from sgsd_lightning.types import (
    JudgedRollout,
    Part,
    Problem,
    ProblemBatch,
    Rollout,
    ScoreRow,
    StepRecord,
    Taught,
    TeacherContext,
    TokenScores,
    TokenSequence,
    without_dropped,
)
from sgsd_lightning.verifiers import Verifier


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """How sampled ids are scored."""

    teacher_tokens_per_forward: int = 16384
    """The most tokens in one forward pass of the teachers; bounds their memory."""
    head_implementation: Implementation = "auto"
    """How log-probabilities are computed from hidden states (see `sgsd_kernels`)."""
    train_eos: bool = True
    """Whether the end-of-sequence token that ends a completion counts in the loss. The authors mask it, which leaves
    the length of completions without a direct gradient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerStep:
    """What one micro-batch of one learner came to."""

    loss: Tensor
    """Scalar: this process's share of the mean over all rollouts that any process sampled for the micro-batch."""
    measurements: Mapping[str, Measurement]
    record: StepRecord
    sampled_lengths: Sequence[tuple[int, int]]
    """Prompt and completion tokens of every rollout, dropped ones included; empty for reused rollouts."""
    token_counts: Mapping[str, TokenCount]
    """What the scorer sent through the model, for ``teachers`` and ``student``."""


class Learner:
    """One policy, its parts and its step.

    The module that owns it registers ``model`` and the views, which are modules; the learner only uses them.

    Args:
        source: Where the model and its tokenizer come from.
        rollouter: What samples from it.
        contexts: What its teachers see.
        objective: What is made of the scores.
        verifier: What says whether a rollout is right.
        prompts: Prompt texts and chat-template arguments.
        teacher: Which weights teach.
        sampled_under: What the sampler sees of the weights.
        scoring: How sampled ids are scored.
        seed: What all randomness derives from.
        version: Gives the optimizer step of the weights as they are now.
        timer: Receives how long each phase took.
        name: Of the policy.

    Raises:
        ValueError: for a view that a sampler cannot look through.
    """

    model: PreTrainedModel
    """Set once it is loaded."""
    tokenizer: PreTrainedTokenizerBase
    """Set by :meth:`load_tokenizer`."""

    def __init__(
        self,
        *,
        source: PolicySource,
        rollouter: Rollouter,
        contexts: ContextBuilder,
        objective: Objective,
        verifier: Verifier,
        prompts: ChatPrompts,
        teacher: PolicyView,
        scoring: ScoringSettings,
        seed: int,
        version: Callable[[], int],
        timer: PhaseTimer,
        sampled_under: PolicyView | None = None,
        name: str = DEFAULT_POLICY,
    ) -> None:
        self.name = name
        self.source = source
        self.rollouter = rollouter
        self.contexts = contexts
        self.objective = objective
        self.verifier = verifier
        self.prompts = prompts
        self.teacher = teacher
        self.sampled_under = sampled_under or LiveTeacher()
        if "sampler" not in self.sampled_under.applies_to:
            raise ValueError(
                f"model.sampled_under: {type(self.sampled_under).__name__} is a view for teachers, not for samplers"
            )
        self.train_eos = scoring.train_eos
        self.scorer = Scorer(scoring.teacher_tokens_per_forward, scoring.head_implementation, timer)
        self.seed = seed
        self.timer = timer
        self.ahead = RolloutsAhead()
        self._version = version

    @property
    def version(self) -> int:
        """The optimizer step of the weights as they are now."""
        return self._version()

    @property
    def parts(self) -> dict[str, Part]:
        """The parts whose state a checkpoint holds, by name."""
        return {
            "rollouts": self.rollouter,
            "engine": self.rollouter.engine,
            "verifier": self.verifier,
            "contexts": self.contexts,
            "objective": self.objective,
        }

    def load_tokenizer(self) -> None:
        """Load the tokenizer and what depends on it, once."""
        if not hasattr(self, "tokenizer"):
            self.tokenizer = self.source.load_tokenizer()
            self.prompts.settle_template(self.tokenizer)
            self.loss_mask_rule = LossMaskRule(self.tokenizer, train_eos=self.train_eos)

    def sample(self, problems: Sequence[Problem], step: int) -> list[Rollout]:
        """A group of rollouts of each problem, under the weights as they are now."""
        with self.timer("rollout"), self.sampled_under.activate(self.model):
            return self.rollouter.rollouts(self, problems, stream="rollout", step=step)

    def sample_ahead(self, problems: Sequence[Problem], step: int) -> list[Rollout]:
        """The rollouts of a micro-batch, which the first of an optimizer step samples with all that follow in it.

        A token of many sequences takes hardly longer than a token of one; the engine bounds how many it decodes at
        once. A collective: every process samples at the same micro-batches.
        """
        if not self.ahead.has_left(step):
            batches = [problems, *ProblemBatch.following_of(problems)]
            rollouts = self.sample([problem for batch in batches for problem in batch], step)
            self.ahead.keep(batches, rollouts, self.rollouter.group_size, step)
        return self.ahead.take(problems)

    def judge(self, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
        """What the verifier says of them."""
        with self.timer("verify"):
            return judge(self.verifier, rollouts)

    def teach(self, own: Sequence[JudgedRollout], everyone: Mapping[str, Sequence[JudgedRollout]]) -> Taught:
        """Build the teachers of every rollout that is not dropped.

        Args:
            own: This policy's judged rollouts.
            everyone: Those of all policies by name.
        """
        with self.timer("contexts"):
            kept = {name: without_dropped(judged) for name, judged in everyone.items()}
            scored = without_dropped(own)
            contexts = self.contexts.contexts_for(scored, kept)
            check_contexts(self.contexts, contexts, len(scored))
            return self.render(own, contexts)

    def render(self, own: Sequence[JudgedRollout], contexts: Sequence[Sequence[TeacherContext]]) -> Taught:
        """From rollouts and contexts to the token sequences that are scored.

        A context that rollouts of one problem share is rendered once. A teacher whose prompt is over-long is left out
        and counted; the weights of the others are scaled to add up to 1 again.
        """
        scored = without_dropped(own)
        problems = {judged.rollout.problem.problem_id: judged.rollout.problem for judged in scored}
        guidance = self.rollouter.guidance_for(list(problems.values()))
        groups = {problem_id: number for number, problem_id in enumerate(problems)}
        prompt_ids: dict[tuple[str, int], tuple[int, ...] | None] = {}
        rows, fitting_contexts = [], []
        for judged, of_rollout in zip(scored, contexts, strict=True):
            rollout = judged.rollout
            problem_id = rollout.problem.problem_id
            fitting: list[tuple[TeacherContext, tuple[TokenSequence, ...]]] = []
            for context in of_rollout:
                place = (problem_id, id(context))
                if place not in prompt_ids:
                    prompt_ids[place] = self._teacher_prompt(rollout, context, guidance[problem_id])
                sequences = self._teacher_sequences(rollout, context, prompt_ids[place])
                if sequences is not None:
                    fitting.append((context, sequences))
            fitting = _rescaled(fitting, len(of_rollout))
            rows.append(self._row(rollout, groups[problem_id], fitting))
            fitting_contexts.append([context for context, _ in fitting])
        over_long = [ids for ids in prompt_ids.values() if ids is not None and self.prompts.is_over_long(ids)]
        return Taught(sampled=own, contexts=fitting_contexts, rows=rows, num_over_long=len(over_long))

    def loss(self, taught: Taught, *, is_reused: bool) -> LearnerStep:
        """Score, evaluate the objective, and measure both; a collective."""
        scores = self.score(taught)
        scored, num_sampled = taught.scored, len(taught.sampled)
        with self.timer("objective"):
            result = self.objective(scores, [judged.verdict for judged in scored])
            check_result(self.objective, result)
            loss = _share_of_step(result.loss, len(scored), num_sampled, self.model.device)
        lengths = [(len(entry.rollout.prompt_ids), len(entry.rollout.completion_ids)) for entry in taught.sampled]
        lengths = [] if is_reused else lengths
        return LearnerStep(
            loss=loss,
            measurements={
                **objective_metrics(result, len(scored), num_sampled),
                **score_metrics(scores),
                **token_metrics(self.scorer.token_counts, lengths),
                "contexts/over_long": Total(float(taught.num_over_long)),
                # rollouts are measured once
                **({} if is_reused else {**rollout_metrics(taught.sampled), **sampler_metrics(scores)}),
            },
            record=record_step(taught, scores, result, policy=self.name, is_reused=is_reused),
            sampled_lengths=lengths,
            token_counts=dict(self.scorer.token_counts),
        )

    def score(self, taught: Taught) -> TokenScores:
        """Every row once in the student's sequences with gradient, and in each teacher's without."""
        return self.scorer.score(self.model, self.teacher, taught.rows, self.objective.score_request)

    def _teacher_prompt(
        self, rollout: Rollout, context: TeacherContext, guidance: TeacherContext | None
    ) -> tuple[int, ...] | None:
        """None where a teacher reads no prompt of its own."""
        if context.sequences is not None or not (context.text or context.messages):
            return None
        if len(rollout.trained_turns) != 1:
            raise ValueError(
                f"the rollout of problem {rollout.problem.problem_id!r} trains {len(rollout.trained_turns)} turns; a "
                "context for several turns has to give token sequences, not a text or a chat"
            )
        return self.prompts.teacher(self.tokenizer, rollout.problem, context, guidance)

    def _teacher_sequences(
        self, rollout: Rollout, context: TeacherContext, prompt_ids: tuple[int, ...] | None
    ) -> tuple[TokenSequence, ...] | None:
        """None where the prompt is over-long. A teacher that is shown nothing reads what the student reads."""
        if context.sequences is not None:
            return context.sequences
        if prompt_ids is None:
            return self._student_sequences(rollout)
        if self.prompts.is_over_long(prompt_ids):
            return None
        return self.source.sequences(prompt_ids, rollout.trained_turns[0].completion)

    def _student_sequences(self, rollout: Rollout) -> tuple[TokenSequence, ...]:
        return tuple(
            sequence
            for turn in rollout.trained_turns
            for sequence in self.source.sequences(turn.prompt_ids, turn.completion)
        )

    def _row(
        self, rollout: Rollout, group: int, teachers: Sequence[tuple[TeacherContext, tuple[TokenSequence, ...]]]
    ) -> ScoreRow:
        turns = rollout.trained_turns
        return ScoreRow(
            student=self._student_sequences(rollout),
            teachers=tuple(sequences for _, sequences in teachers),
            context_weight=tuple(context.weight for context, _ in teachers),
            group=group,
            loss_mask=torch.cat([self.loss_mask_rule(turn.completion) for turn in turns]),
            sampled_logprob=rollout.logprobs,
            step_index=torch.cat([_step_index(number, turn.completion) for number, turn in enumerate(turns)]),
        )


def _step_index(turn: int, completion: Any) -> Tensor:
    if completion.reveal_step is not None:
        return torch.tensor(completion.reveal_step, dtype=torch.int64)
    return torch.full((len(completion.ids),), turn, dtype=torch.int64)


def _rescaled(
    fitting: list[tuple[TeacherContext, tuple[TokenSequence, ...]]], num_contexts: int
) -> list[tuple[TeacherContext, tuple[TokenSequence, ...]]]:
    total = sum(context.weight for context, _ in fitting)
    if len(fitting) == num_contexts or total == 0:
        return fitting
    return [(replace(context, weight=context.weight / total), sequences) for context, sequences in fitting]


def _share_of_step(mean_loss: Tensor, num_scored: int, num_sampled: int, device: torch.device) -> Tensor:
    """This process's part of the mean over all rollouts that were sampled for this micro-batch, by any process.

    Dropped rollouts count as 0 in that mean, and gradients are averaged over processes, so that neither loss nor
    gradient depends on how a step is split.
    """
    mean_sampled = sum_over_processes(num_sampled, device) / num_processes()
    return mean_loss * (num_scored / mean_sampled if mean_sampled else 0.0)
