"""The contract of a rollouter: problems in, rollouts out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.engines import RolloutEngine
from sgsd_lightning.prompts.chat import ChatPrompts
from sgsd_lightning.types import Part, Problem, Rollout, TeacherContext


class SamplingPolicy(Protocol):
    """What a rollouter needs of the policy that it samples from; a `Learner` is one."""

    name: str
    seed: int
    prompts: ChatPrompts

    @property
    def version(self) -> int:
        """The optimizer step of the current weights."""

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...


class Wanted(NamedTuple):
    """A rollout to sample."""

    problem: Problem
    sample_index: int
    """Which of the samples of its problem."""


class Rollouter(Part):
    """Samples rollouts: who speaks when, what each turn reads, and where its randomness comes from."""

    group_size: int
    """Rollouts of each problem, its group."""

    engine: RolloutEngine
    """What samples completions."""

    def guidance_for(self, problems: Sequence[Problem]) -> Mapping[str, TeacherContext | None]:
        """Return by problem id what the student's prompt shows beside the problem, for teachers to read as well."""
        return {problem.problem_id: None for problem in problems}

    def sources(self, wanted: Sequence[Wanted]) -> list[tuple[str, ...]]:
        """Return per rollout the ids of what its prompt shows beside the problem."""
        return [() for _ in wanted]

    @abstractmethod
    def sample(
        self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str, step: int | None = None
    ) -> list[Rollout]:
        """Sample from the policy's current weights, in the order of ``wanted``; a collective under FSDP2.

        Args:
            policy: The policy to sample.
            wanted: The rollouts to sample; may be empty in a process without work.
            stream: The purpose (``rollout``, ``evaluation``); streams do not share random numbers.
            step: The optimizer step, from which the seed derives too; None gives the same noise at any step.
        """

    def rollouts(
        self, policy: SamplingPolicy, problems: Sequence[Problem], *, stream: str, step: int | None = None
    ) -> list[Rollout]:
        """Sample ``group_size`` rollouts per problem, one problem after the other."""
        wanted = [Wanted(problem, index) for problem in problems for index in range(self.group_size)]
        return self.sample(policy, wanted, stream=stream, step=step)

    def stream(self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str) -> Iterator[tuple[int, Rollout]]:
        """Yield (index into ``wanted``, rollout) as rollouts end, so that a stop loses little work."""
        yield from enumerate(self.sample(policy, wanted, stream=stream))
