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
        """The optimizer step of the weights as they are now."""

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...


class Wanted(NamedTuple):
    """A rollout that is to be sampled."""

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
        """By problem id, what the student's prompt shows beside the problem, for teachers that are to see it too."""
        return {problem.problem_id: None for problem in problems}

    def sources(self, wanted: Sequence[Wanted]) -> list[tuple[str, ...]]:
        """Per rollout, ids of what its prompt shows beside the problem."""
        return [() for _ in wanted]

    @abstractmethod
    def sample(
        self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str, step: int | None = None
    ) -> list[Rollout]:
        """Rollouts of the policy's weights as they are now, in the order of ``wanted``; a collective under FSDP2.

        Args:
            policy: Who is sampled.
            wanted: Of which problems, and which of their samples; may be empty in a process without a part.
            stream: What the rollouts are for (``rollout``, ``evaluation``): streams do not share random numbers.
            step: The optimizer step that randomness also derives from; None gives the same noise at any step.
        """

    def rollouts(
        self, policy: SamplingPolicy, problems: Sequence[Problem], *, stream: str, step: int | None = None
    ) -> list[Rollout]:
        """``group_size`` rollouts of each problem, one problem after the other."""
        wanted = [Wanted(problem, index) for problem in problems for index in range(self.group_size)]
        return self.sample(policy, wanted, stream=stream, step=step)

    def stream(self, policy: SamplingPolicy, wanted: Sequence[Wanted], *, stream: str) -> Iterator[tuple[int, Rollout]]:
        """The same as they end, for work that is to survive a stop: the index into ``wanted``, and the rollout."""
        yield from enumerate(self.sample(policy, wanted, stream=stream))
