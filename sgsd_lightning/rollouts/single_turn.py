"""Rollouters of one prompt and one completion, for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sgsd_lightning.contexts.base import ProblemContextBuilder, student_guidance
from sgsd_lightning.engines import (
    GenerationRequest,
    RolloutEngine,
    TransformersEngine,
    check_freshness,
    end_of_sequence_ids,
)
from sgsd_lightning.prompts.chat import PromptRole
from sgsd_lightning.rollouts.base import Rollouter, SamplingPolicy, Wanted
from sgsd_lightning.seeding import rollout_seed
from sgsd_lightning.types import Completion, Messages, Problem, Rollout, SamplingSettings, TeacherContext, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prompt:
    messages: Messages
    ids: tuple[int, ...]


class SingleTurn(Rollouter):
    """Samples completions of each problem's student prompt.

    Args:
        engine: samples completions; by default the policy itself through transformers.
        sampling: sampling settings; by default the policy's own distribution.
        group_size: rollouts of each problem in a batch.
        guidance: what the student's prompts show beside the problem, in one block (the +Skill variants); teachers read
            it too. None, the default and the paper's, samples under plain prompts.
    """

    def __init__(
        self,
        engine: RolloutEngine | None = None,
        sampling: SamplingSettings | None = None,
        group_size: int = 1,
        guidance: ProblemContextBuilder | None = None,
    ) -> None:
        if group_size < 1:
            raise ValueError(f"rollouts.group_size must be at least 1; got {group_size}")
        _check_builder("rollouts.guidance", guidance)
        self.engine = engine or TransformersEngine()
        self.sampling = sampling or SamplingSettings()
        self.group_size = group_size
        self.guidance = guidance

    def prepare(self) -> None:
        if self.guidance is not None:
            self.guidance.prepare()

    def sources(self, wanted: Sequence[Wanted]) -> list[tuple[str, ...]]:
        guidance = self.guidance_for([entry.problem for entry in wanted])
        return [_source_ids(guidance[entry.problem.problem_id]) for entry in wanted]

    def guidance_for(self, problems: Sequence[Problem]) -> Mapping[str, TeacherContext | None]:
        return student_guidance(self.guidance, problems)

    def sample(
        self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str, step: int | None = None
    ) -> list[Rollout]:
        prompts = self._prompts(policy, [entry.problem for entry in wanted], [entry.sample_index for entry in wanted])
        self.engine.sync(policy.model, policy.version)
        requests = self._requests(policy, wanted, prompts, stream, step)
        completions = self.engine.generate(policy.model, requests, self.sampling)
        check_freshness(self.engine, completions, policy.version)
        return [_rollout(policy, *row) for row in zip(wanted, prompts, completions, strict=True)]

    def stream(self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str) -> Iterator[tuple[int, Rollout]]:
        prompts = self._prompts(policy, [entry.problem for entry in wanted], [entry.sample_index for entry in wanted])
        self.engine.sync(policy.model, policy.version)
        requests = self._requests(policy, wanted, prompts, stream, None)
        for place, completion in self.engine.stream(policy.model, requests, self.sampling):
            yield place, _rollout(policy, wanted[place], prompts[place], completion)

    def _requests(
        self,
        policy: SamplingPolicy,
        wanted: Sequence[Wanted],
        prompts: Sequence[_Prompt],
        stream: str,
        step: int | None,
    ) -> list[GenerationRequest]:
        stop_ids = end_of_sequence_ids(policy.model, policy.tokenizer)
        return [
            GenerationRequest(
                prompt_ids=prompt.ids,
                seed=rollout_seed(
                    stream, policy.seed, step=step, policy=policy.name, problem=problem.problem_id, sample=sample_index
                ),
                stop_ids=stop_ids,
                label=f"problem {problem.problem_id!r}",
            )
            for (problem, sample_index), prompt in zip(wanted, prompts, strict=True)
        ]

    def _prompts(
        self, policy: SamplingPolicy, problems: Sequence[Problem], sample_indices: Sequence[int]
    ) -> list[_Prompt]:
        """Return one prompt per wanted rollout; rollouts of one problem share theirs."""
        distinct = list({problem.problem_id: problem for problem in problems}.values())
        guidance = self.guidance_for(distinct)
        rendered = {
            problem.problem_id: _Prompt(
                messages=policy.prompts.student_messages(problem, guidance[problem.problem_id]),
                ids=policy.prompts.student(policy.tokenizer, problem, guidance[problem.problem_id]),
            )
            for problem in distinct
        }
        return [rendered[problem.problem_id] for problem in problems]


class EvaluationTurn(SingleTurn):
    """Samples completions of each problem's evaluation prompt: plain, or with one context per sample in turn.

    Args:
        engine: as for `SingleTurn`.
        sampling: as for `SingleTurn`.
        group_size: samples of each problem.
        contexts: what the prompts show; None evaluates plain prompts.
    """

    def __init__(
        self,
        engine: RolloutEngine | None = None,
        sampling: SamplingSettings | None = None,
        group_size: int = 4,
        contexts: ProblemContextBuilder | None = None,
    ) -> None:
        super().__init__(engine, sampling, group_size)
        _check_builder("evaluation.contexts", contexts)
        self.contexts = contexts

    def prepare(self) -> None:
        if self.contexts is not None:
            self.contexts.prepare()

    def sources(self, wanted: Sequence[Wanted]) -> list[tuple[str, ...]]:
        shown = self.shown([entry.problem for entry in wanted], [entry.sample_index for entry in wanted])
        return [_source_ids(context) for context in shown]

    def shown(self, problems: Sequence[Problem], sample_indices: Sequence[int]) -> list[TeacherContext | None]:
        """Return what the prompt of each sample shows beside its problem; None for a plain prompt."""
        if self.contexts is None:
            return [None] * len(problems)
        # sets may use one id for different problems
        distinct = {(problem.problem_id, problem.text): problem for problem in problems}
        pools = dict(zip(distinct, self.contexts.build(list(distinct.values())), strict=True))
        found: list[TeacherContext | None] = []
        for problem, index in zip(problems, sample_indices, strict=True):
            pool = pools[problem.problem_id, problem.text]
            found.append(pool[index % len(pool)] if pool else None)
        return found

    def _prompts(
        self, policy: SamplingPolicy, problems: Sequence[Problem], sample_indices: Sequence[int]
    ) -> list[_Prompt]:
        role = PromptRole.EVALUATION
        return [
            _Prompt(
                messages=policy.prompts.messages(role if context is None else PromptRole.TEACHER, problem, context),
                ids=policy.prompts.evaluation(policy.tokenizer, problem, context),
            )
            for problem, context in zip(problems, self.shown(problems, sample_indices), strict=True)
        ]


def _source_ids(context: TeacherContext | None) -> tuple[str, ...]:
    return () if context is None else context.source_ids


def _check_builder(field: str, builder: object) -> None:
    if builder is not None and not isinstance(builder, ProblemContextBuilder):
        raise ValueError(
            f"{field} must be a ProblemContextBuilder, whose contexts depend on the problem alone; got "
            f"{type(builder).__name__}, which reads rollouts that are not there yet"
        )


def _rollout(policy: SamplingPolicy, wanted: Wanted, prompt: _Prompt, completion: Completion) -> Rollout:
    text = policy.tokenizer.decode(list(completion.ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Rollout(
        problem=wanted.problem,
        turns=(Turn(prompt_ids=prompt.ids, completion=completion, text=text),),
        messages=(*prompt.messages, {"role": "assistant", "content": text}),
        sample_index=wanted.sample_index,
        policy=policy.name,
    )
