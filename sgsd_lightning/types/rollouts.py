"""What is sampled: a problem, the completions of its turns, and the rollout that they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sgsd_lightning.types.arguments import require, require_at_least

if TYPE_CHECKING:
    from torch import Tensor

Messages = Sequence[Mapping[str, str]]
"""A chat: ``[{"role": "user", "content": "..."}]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A question with a checkable answer."""

    problem_id: str
    text: str
    answer: str
    """The published answer, as the source spells it (LaTeX where the source uses LaTeX)."""
    solution: str | None = None
    """A worked solution, for contexts that show one."""
    shards: tuple[str, ...] = ()
    """The same question in parts, for conversations that reveal it turn by turn; empty if it is asked at once."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ProblemBatch(list[Problem]):
    """The problems of one micro-batch of one process.

    Args:
        problems: in order.
        weight: What the micro-batch counts in its optimizer step. 1 is an equal share of a step in which all
            micro-batches are there; those of a short step count more, so that the step is a mean over its problems.
        following: The problems of this process in each micro-batch that follows in the same optimizer step, whose
            rollouts are sampled with this one's. Every process has as many micro-batches.
    """

    def __init__(
        self, problems: Iterable[Problem] = (), weight: float = 1.0, following: Sequence[Sequence[Problem]] = ()
    ) -> None:
        super().__init__(problems)
        self.weight = weight
        self.following = following

    @staticmethod
    def weight_of(problems: Sequence[Problem]) -> float:
        """Return what a micro-batch counts; a plain list, as a data module of one's own may give, an equal share."""
        return problems.weight if isinstance(problems, ProblemBatch) else 1.0

    @staticmethod
    def following_of(problems: Sequence[Problem]) -> Sequence[Sequence[Problem]]:
        """Return the micro-batches that follow in the step; a plain list names none."""
        return problems.following if isinstance(problems, ProblemBatch) else ()


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How completions are sampled. The defaults sample from the model itself, unfiltered."""

    max_new_tokens: int = 1024
    sampling_temperature: float = 1.0
    """0 is greedy."""
    sampling_top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches this. 1 keeps all."""
    sampling_top_k: int = 0
    """Keep this many most probable tokens. 0 keeps all."""
    sampling_min_p: float = 0.0
    """Drop tokens under this fraction of the most probable token's probability. 0 drops none."""

    def __post_init__(self) -> None:
        temperature, top_p = self.sampling_temperature, self.sampling_top_p
        top_k, min_p = self.sampling_top_k, self.sampling_min_p
        require_at_least(1, "sampling.max_new_tokens", self.max_new_tokens)
        require(
            0 <= temperature < math.inf,
            "sampling.sampling_temperature",
            "be 0 (greedy) or more, and finite",
            temperature,
        )
        require(0 < top_p <= 1, "sampling.sampling_top_p", "be in (0, 1]", top_p)
        require(top_k >= 0, "sampling.sampling_top_k", "be 0 (off) or more", top_k)
        require(0 <= min_p < 1, "sampling.sampling_min_p", "be in [0, 1)", min_p)


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOPPED = "stopped"
    """The model sampled an end-of-sequence token, which is the completion's last id."""
    TRUNCATED = "truncated"
    """``max_new_tokens`` ran out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What an engine returns for one request: T ids and their log-probabilities."""

    ids: tuple[int, ...]
    """Exactly the sampled ids, the end-of-sequence token included when one was sampled."""
    finish_reason: FinishReason
    logprobs: Tensor
    """[T] float32, CPU: the policy's own log-probability of each id (temperature 1, no filter)."""
    sampling_logprobs: Tensor
    """[T] float32, CPU: its log-probability under the tempered and filtered sampling distribution."""
    kept_mass: Tensor | None = None
    """[T] float32, CPU: probability mass of the tempered distribution that the filters kept, in (0, 1]; None if the
    engine does not report it."""
    policy_version: int = 0
    """The optimizer step of the weights that sampled it."""
    reveal_step: tuple[int, ...] | None = None
    """[T] the denoising step that fixed each id; None if ids were sampled from left to right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One completion, and exactly what the policy read before it."""

    prompt_ids: tuple[int, ...]
    completion: Completion
    text: str
    """The completion's ids decoded without special tokens: for verifiers and people, never encoded again."""
    is_trained: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One sampled conversation about one problem; most have a single turn.

    ``T`` below is the number of sampled ids of all trained turns, one turn after the other.
    """

    problem: Problem
    turns: tuple[Turn, ...]
    """At least one; at least one of them is trained."""
    messages: Messages
    """The chat as people and judges read it, the policy's replies included."""
    sample_index: int = 0
    """Which of the samples of its problem in this batch."""
    policy: str = "policy"
    """The name of the policy that sampled it."""
    is_on_policy: bool = True
    """False for ids from other weights or from a file, whose sampling probabilities are not the policy's."""

    @property
    def trained_turns(self) -> tuple[Turn, ...]:
        """The turns whose ids are scored and trained on."""
        return tuple(turn for turn in self.turns if turn.is_trained)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The ids that the policy read before the last turn."""
        return self.turns[-1].prompt_ids

    @property
    def completion_ids(self) -> tuple[int, ...]:
        """The T sampled ids."""
        return tuple(token_id for turn in self.trained_turns for token_id in turn.completion.ids)

    @property
    def completion_text(self) -> str:
        """The last turn's text."""
        return self.turns[-1].text

    @property
    def finish_reason(self) -> FinishReason:
        """Why the last turn ended."""
        return self.turns[-1].completion.finish_reason

    @property
    def logprobs(self) -> Tensor:
        """[T] float32, CPU."""
        return _join([turn.completion.logprobs for turn in self.trained_turns])

    @property
    def sampling_logprobs(self) -> Tensor:
        """[T] float32, CPU."""
        return _join([turn.completion.sampling_logprobs for turn in self.trained_turns])

    @property
    def kept_mass(self) -> Tensor | None:
        """[T] float32, CPU; None if the engine did not report it for one of the turns."""
        masses = [turn.completion.kept_mass for turn in self.trained_turns]
        known = [mass for mass in masses if mass is not None]
        return _join(known) if len(known) == len(masses) else None

    @property
    def policy_version(self) -> int:
        """The optimizer step of the weights that sampled the last turn."""
        return self.turns[-1].completion.policy_version


def _join(parts: Sequence[Tensor]) -> Tensor:
    import torch  # takes seconds, which commands that only read files need not wait for

    return parts[0] if len(parts) == 1 else torch.cat(list(parts)) if parts else torch.zeros(0)
