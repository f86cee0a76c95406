"""The records that flow through one training step, in the order in which they come to be.

Problem -> Rollout -> Verdict -> TeacherContext -> TokenScores. Data only: whoever fills a record holds the logic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

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
    metadata: Mapping[str, Any] = field(default_factory=dict)


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
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "sampling_temperature": (self.sampling_temperature >= 0, "0 (greedy) or more"),
            "sampling_top_p": (0 < self.sampling_top_p <= 1, "in (0, 1]"),
            "sampling_top_k": (self.sampling_top_k >= 0, "0 (off) or more"),
            "sampling_min_p": (0 <= self.sampling_min_p < 1, "in [0, 1)"),
        }
        for name, (is_valid, rule) in rules.items():
            if not is_valid:
                raise ValueError(f"sampling.{name} must be {rule}; got {getattr(self, name)}")


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOPPED = "stopped"
    """The model sampled an end-of-sequence token, which is the completion's last id."""
    TRUNCATED = "truncated"
    """``max_new_tokens`` ran out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One sampled completion of one problem's prompt. ``T`` below is the number of sampled ids."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """Exactly the sampled ids, the end-of-sequence token included when one was sampled."""
    completion_text: str
    """The ids decoded without special tokens: for verifiers and people, never encoded again."""
    finish_reason: FinishReason
    logprobs: Tensor
    """[T] float32, CPU: the policy's own log-probability of each id (temperature 1, no filter)."""
    sampling_logprobs: Tensor
    """[T] float32, CPU: its log-probability under the tempered and filtered sampling distribution."""
    kept_mass: Tensor
    """[T] float32, CPU: what the filters kept of the tempered distribution, in (0, 1]."""
    group_index: int = 0
    """Which of the samples of its problem in this batch."""
    weights_version: int = 0
    """The optimizer step of the weights that it was sampled with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the verifier says of one rollout."""

    reward: float
    answer: str | None
    """The answer found in the completion; None where there was none."""
    outcome: int
    """+1 accepted, -1 rejected, 0 no judgement (its teachers' polarity is 0)."""
    is_dropped: bool = False
    """The rollout takes no further part in the step; outcome is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherContext:
    """What one teacher sees beyond the student's prompt."""

    text: str
    """The privileged text, as it stands in the teacher's prompt."""
    weight: float
    """context_weight: the weights of one problem's contexts add up to 1."""
    source_ids: tuple[str, ...] = ()
    """Where it came from: ("gen_001", "err_004") for a skill-mistake pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DivergenceRequest:
    """A divergence per token of the mixture of a rollout's teachers and the student, over the whole vocabulary.

    See `sgsd_kernels.linear_divergence` for what the fields mean.
    """

    kind: Literal["forward_kl", "reverse_kl", "jsd"] = "jsd"
    beta: float = 0.5
    temperature: float = 1.0
    token_clip: float | None = None
    support_top_k: int = -1
    support_tail: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    """What an objective needs beside the log-probabilities of the sampled tokens."""

    entropy: bool = True
    support_top_k: int = -1
    """Above 0: both distributions restricted to the teacher's top-k tokens plus the sampled one."""
    divergence: DivergenceRequest | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SupportScores:
    """Log-probabilities renormalised on a local support of ``S = support_top_k + 1`` tokens, float32 nats."""

    teacher_logprob: Tensor
    """[B, K, T, S], -inf in slots outside the support."""
    student_logprob: Tensor
    """[B, K, T, S], -inf in slots outside the support; carries the gradient."""
    target_slot: Tensor
    """[B, K, T] int64: the slot of the sampled token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScores:
    """Per-token scores of B rollouts under the student and K teacher contexts; T is the longest completion.

    Only these scalars are padded; what went through the model was packed. Padded entries are 0 and False.
    """

    student_logprob: Tensor
    """[B, T] float32 nats; carries the gradient."""
    teacher_logprob: Tensor
    """[B, K, T] float32 nats, no gradient. K may be 0."""
    completion_mask: Tensor
    """[B, T] bool: a sampled token."""
    loss_mask: Tensor
    """[B, T] bool: a sampled token that counts; a subset of ``completion_mask``."""
    context_weight: Tensor
    """[B, K] float32; 0 where a rollout has fewer than K contexts."""
    problem_index: Tensor
    """[B] int64: the same number for rollouts of one problem, counted from 0."""
    sampled_logprob: Tensor
    """[B, T] float32 nats: the policy's log-probability when the token was sampled, no gradient."""
    student_entropy: Tensor | None = None
    """[B, T] float32 nats, no gradient."""
    teacher_entropy: Tensor | None = None
    """[B, K, T] float32 nats."""
    support: SupportScores | None = None
    divergence: Tensor | None = None
    """[B, T] float32 nats, of the tokens in ``loss_mask`` of rollouts that have a teacher; carries the gradient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What one micro-batch of training went through, for tables, ledgers and pictures."""

    rollouts: Sequence[Rollout]
    verdicts: Sequence[Verdict]
    contexts: Sequence[Sequence[TeacherContext]]
    """Per rollout, K_b of them; empty for a dropped one."""
    stance_score: Sequence[Sequence[float]]
    """Per rollout and context, nats per token; empty where the objective measures none."""
    stance: Sequence[Sequence[int]]
    """Per rollout and context: +1 the teacher likes the rollout, -1 it does not, 0 neither."""
    polarity: Sequence[Sequence[int]]
    """Per rollout and context: +1, -1, 0."""
    gated_loss: Sequence[Sequence[float]]
    """Per rollout and context, nats per token: what the gate let through; empty where the objective measures none."""
    loss_mask: Tensor
    """[B, T] bool: the tokens that counted."""
    student_logprob: Tensor
    """[B, T] float32 nats, detached."""
    log_ratio: Tensor
    """[B, K, T] float32 nats, detached: teacher minus student; meaningless outside ``loss_mask``."""
    is_reused: bool = False
    """Whether an earlier optimizer step was taken on the same rollouts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one teacher turned out to be for one rollout."""

    source_ids: tuple[str, ...]
    """Of the teacher's context."""
    outcome: int
    """Of the rollout: +1, -1, 0."""
    polarity: int
    """Outcome times stance: +1 helpful, -1 misleading, 0 neutral; also where an objective takes every teacher for
    helpful."""
    stance_score: float
    """Nats per token."""
    gated_loss: float
    """Nats per token."""
