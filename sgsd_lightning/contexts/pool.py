"""From judged rollouts to what their teachers read: contexts and prompts of every rollout that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.contexts import ContextBuilder, guidance_of
from sgsd_lightning.prompts.chat import ChatPrompts
from sgsd_lightning.types import Problem, Rollout, TeacherContext, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherPool:
    """The rollouts that are scored, with the contexts and prompt ids of their teachers, row by row."""

    rollouts: Sequence[Rollout]
    verdicts: Sequence[Verdict]
    contexts: Sequence[Sequence[TeacherContext]]
    prompts: Sequence[Sequence[tuple[int, ...]]]
    num_over_long: int
    """Teacher prompts that were left out because they exceed ``max_prompt_tokens``."""

    @property
    def context_weights(self) -> list[list[float]]:
        """Per rollout, adding up to 1 where there is a context."""
        return [[context.weight for context in contexts] for contexts in self.contexts]


def build_teacher_pool(
    rollouts: Sequence[Rollout],
    verdicts: Sequence[Verdict],
    builder: ContextBuilder,
    prompts: ChatPrompts,
    tokenizer: PreTrainedTokenizerBase,
    student_contexts: ContextBuilder | None = None,
) -> TeacherPool:
    """Drop what the verifier dropped, and give every other rollout its teachers.

    A problem's contexts are built and rendered once, however many rollouts it has. A teacher whose prompt is over-long
    is left out and counted; the weights of the others are scaled to add up to 1 again. What ``student_contexts`` showed
    the student its teachers read too, before their own context.
    """
    kept = [(rollout, verdict) for rollout, verdict in zip(rollouts, verdicts, strict=True) if not verdict.is_dropped]
    problems = list({rollout.problem.problem_id: rollout.problem for rollout, _ in kept}.values())
    rendered: dict[str, list[tuple[TeacherContext, tuple[int, ...]]]] = {}
    num_over_long = 0
    guidance = guidance_of(student_contexts, problems)
    for problem, contexts in zip(problems, builder.build(problems), strict=True):
        fitting = _fitting(problem, contexts, guidance[problem.problem_id], prompts, tokenizer)
        num_over_long += len(contexts) - len(fitting)
        rendered[problem.problem_id] = fitting
    rows = [rendered[rollout.problem.problem_id] for rollout, _ in kept]
    return TeacherPool(
        rollouts=[rollout for rollout, _ in kept],
        verdicts=[verdict for _, verdict in kept],
        contexts=[[context for context, _ in row] for row in rows],
        prompts=[[prompt_ids for _, prompt_ids in row] for row in rows],
        num_over_long=num_over_long,
    )


def _fitting(
    problem: Problem,
    contexts: Sequence[TeacherContext],
    guidance: TeacherContext | None,
    prompts: ChatPrompts,
    tokenizer: PreTrainedTokenizerBase,
) -> list[tuple[TeacherContext, tuple[int, ...]]]:
    rendered = [(context, prompts.teacher(tokenizer, problem, context, guidance)) for context in contexts]
    fitting = [(context, ids) for context, ids in rendered if not prompts.is_over_long(ids)]
    total = sum(context.weight for context, _ in fitting)
    if len(fitting) == len(rendered) or total == 0:
        return fitting
    return [(replace(context, weight=context.weight / total), ids) for context, ids in fitting]
