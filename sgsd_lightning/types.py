"""The records that flow through one training step, in the order in which they are made, and what all parts share.

Problem -> Completion -> Turn -> Rollout -> Verdict -> TeacherContext -> ScoreRow -> TokenScores. Data only: whoever
fills a record holds the logic. The one class with methods is `Part`, the life cycle of every plug-in.

A row is a rollout. Its T sampled ids are spread over one or more token sequences, each id predicted from some position
of some sequence. Every teacher reads the same T ids in sequences of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

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
    """The same question in parts, for conversations that reveal it turn by turn; empty where it is asked at once."""
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
class Completion:
    """What an engine returns for one request: T ids and their probabilities, no problem and no text."""

    ids: tuple[int, ...]
    """Exactly the sampled ids, the end-of-sequence token included when one was sampled."""
    finish_reason: FinishReason
    logprobs: Tensor
    """[T] float32, CPU: the policy's own log-probability of each id (temperature 1, no filter)."""
    sampling_logprobs: Tensor
    """[T] float32, CPU: its log-probability under the tempered and filtered sampling distribution."""
    kept_mass: Tensor | None = None
    """[T] float32, CPU: what the filters kept of the tempered distribution, in (0, 1]; None where the engine cannot
    say."""
    policy_version: int = 0
    """The optimizer step of the weights that it was sampled with."""
    reveal_step: tuple[int, ...] | None = None
    """[T] the denoising step that fixed each id; None where ids were sampled from left to right."""


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
    """False for ids that other weights or a record gave: their sampling probabilities say nothing about the policy."""

    @property
    def trained_turns(self) -> tuple[Turn, ...]:
        """The turns whose ids are scored and learnt."""
        return tuple(turn for turn in self.turns if turn.is_trained)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What was read before the last turn."""
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
        return _joined([turn.completion.logprobs for turn in self.trained_turns])

    @property
    def sampling_logprobs(self) -> Tensor:
        """[T] float32, CPU."""
        return _joined([turn.completion.sampling_logprobs for turn in self.trained_turns])

    @property
    def kept_mass(self) -> Tensor | None:
        """[T] float32, CPU; None where the engine could not say for one of the turns."""
        masses = [turn.completion.kept_mass for turn in self.trained_turns]
        known = [mass for mass in masses if mass is not None]
        return _joined(known) if len(known) == len(masses) else None

    @property
    def policy_version(self) -> int:
        """The optimizer step of the weights that sampled the last turn."""
        return self.turns[-1].completion.policy_version


def _joined(parts: Sequence[Tensor]) -> Tensor:
    import torch  # takes seconds, which commands that only read files need not wait for

    return parts[0] if len(parts) == 1 else torch.cat(list(parts)) if parts else torch.zeros(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardSpan:
    """The reward of one part of a completion."""

    start: int
    """Index of its first token among the T sampled ids."""
    end: int
    """One beyond its last token."""
    reward: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the verifier says of one rollout."""

    reward: float | None
    """None: it could not be judged. It then takes no part in its group's statistics."""
    accepted: bool | None
    """Whether the rollout counts as right; None where it could not be judged."""
    outcome: int
    """+1 accepted, -1 rejected, 0 no judgement (its teachers' polarity is 0)."""
    answer: str | None
    """The answer found in the completion; None where there was none."""
    spans: tuple[RewardSpan, ...] = ()
    """Dense rewards, in order; empty where the verifier gives none."""
    is_dropped: bool = False
    """The rollout takes no further part in the step; outcome is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedRollout:
    """A rollout and what the verifier says of it."""

    rollout: Rollout
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSequence:
    """What a model reads in one go, and which ids are predicted from which of its positions."""

    input_ids: tuple[int, ...]
    """[L], at least one."""
    predicted_from: tuple[int, ...]
    """[N]: for each target the index into ``input_ids`` of the position whose hidden state predicts it."""
    targets: tuple[int, ...]
    """[N] ids."""
    is_causal: bool = True
    """Whether a position sees only what is before it; False lets every position see all L."""

    @classmethod
    def causal(cls, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> TokenSequence:
        """A prompt and the completion that follows it, every id predicted from the position before it.

        The model need not read the completion's last id.

        Raises:
            ValueError: for an empty prompt, after which a first id has no position to be predicted from.
        """
        if not prompt_ids:
            raise ValueError("a prompt to score under has no tokens; it needs at least one, to predict the first from")
        start = len(prompt_ids) - 1
        return cls(
            input_ids=(*prompt_ids, *completion_ids[:-1]),
            predicted_from=tuple(range(start, start + len(completion_ids))),
            targets=tuple(completion_ids),
        )

    @property
    def num_input_tokens(self) -> int:
        """L: tokens that the model reads."""
        return len(self.input_ids)

    @property
    def shareable_ids(self) -> tuple[int, ...]:
        """What sequences may have in common and compute once: all up to the first prediction; nothing if not causal."""
        if not self.is_causal or not self.predicted_from:
            return self.input_ids if self.is_causal else ()
        return self.input_ids[: self.predicted_from[0] + 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherContext:
    """What one teacher sees beyond the student's prompt: a text, a whole chat, or token sequences."""

    text: str = ""
    """Privileged text, as it stands in the teacher's user turn; empty for the student's own prompt."""
    messages: Messages | None = None
    """A whole chat that replaces the student's."""
    sequences: tuple[TokenSequence, ...] | None = None
    """Token sequences as they are, whose targets are the rollout's ids in order."""
    weight: float
    """context_weight: the weights of one rollout's contexts add up to 1."""
    source_ids: tuple[str, ...] = ()
    """Where it came from: ("gen_001", "err_004") for a skill-mistake pair."""

    def __post_init__(self) -> None:
        given = [name for name in ("text", "messages", "sequences") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"a teacher context shows one of text, messages and sequences; got {' and '.join(given)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One rollout as the scorer reads it: T sampled ids in the student's sequences and in those of K_b teachers."""

    student: tuple[TokenSequence, ...]
    """Their targets in order are the T ids; empty where nothing was sampled."""
    teachers: tuple[tuple[TokenSequence, ...], ...] = ()
    """K_b of them, each with the same targets in the same order."""
    context_weight: tuple[float, ...] = ()
    """[K_b], adding up to 1 where there is a teacher."""
    group: int = 0
    """The same number for rows of one problem."""
    loss_mask: Tensor
    """[T] bool, CPU: the ids that count in the loss."""
    sampled_logprob: Tensor
    """[T] float32, CPU: the policy's log-probability of each id when it was sampled."""
    step_index: Tensor
    """[T] int64, CPU: the turn or denoising step that each id belongs to."""

    def __post_init__(self) -> None:
        if len(self.teachers) != len(self.context_weight):
            raise ValueError(f"a row has {len(self.teachers)} teachers but {len(self.context_weight)} context weights")
        targets = self.targets
        for number, teacher in enumerate(self.teachers):
            if _targets(teacher) != targets:
                raise ValueError(f"teacher {number} of a row is to predict other ids than the student")
        for name in ("loss_mask", "sampled_logprob", "step_index"):
            if len(getattr(self, name)) != len(targets):
                raise ValueError(f"a row of {len(targets)} ids has a {name} of {len(getattr(self, name))}")

    @property
    def targets(self) -> tuple[int, ...]:
        """The T sampled ids."""
        return _targets(self.student)


def _targets(sequences: Sequence[TokenSequence]) -> tuple[int, ...]:
    return tuple(token_id for sequence in sequences for token_id in sequence.targets)


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
    group: Tensor
    """[B] int64: the same number for rollouts of one problem, counted from 0."""
    step_index: Tensor
    """[B, T] int64: the turn or denoising step of each id; 0 for rollouts of one turn."""
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
class TeacherStances:
    """What an objective measured of B rollouts' K teachers, each [B, K], detached."""

    stance_score: Tensor
    """Nats per token."""
    stance: Tensor
    """+1 the teacher likes the rollout better than the student does, -1 less, 0 neither or absent."""
    polarity: Tensor
    """+1 helpful, -1 misleading, 0 neutral or absent."""
    gated_loss: Tensor
    """Nats per token: what the gate let through of each teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stance:
    """The same of one rollout and one teacher."""

    stance_score: float
    stance: int
    polarity: int
    gated_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What one micro-batch of training went through, for tables, ledgers and pictures."""

    judged: Sequence[JudgedRollout]
    """The rollouts that were scored."""
    contexts: Sequence[Sequence[TeacherContext]]
    """Per rollout, K_b of them."""
    stances: Sequence[Sequence[Stance]]
    """Per rollout and context; empty where the objective measures none."""
    loss_mask: Tensor
    """[B, T] bool: the tokens that counted."""
    student_logprob: Tensor
    """[B, T] float32 nats, detached."""
    log_ratio: Tensor
    """[B, K, T] float32 nats, detached: teacher minus student; meaningless outside ``loss_mask``."""
    is_reused: bool = False
    """Whether an earlier optimizer step was taken on the same rollouts."""
    policy: str = "policy"
    """The name of the policy that learns from them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One teacher's measured effect on one rollout."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Taught:
    """A micro-batch of judged rollouts and their teachers: what a loss is computed from, kept with reused rollouts."""

    sampled: Sequence[JudgedRollout]
    """All of them, dropped ones included."""
    contexts: Sequence[Sequence[TeacherContext]]
    """Per rollout that is not dropped, those of its teachers whose prompts fit."""
    rows: Sequence[ScoreRow]
    """Per rollout that is not dropped."""
    num_over_long: int
    """Teachers that were left out because their prompt exceeds ``max_prompt_tokens``."""

    @property
    def scored(self) -> list[JudgedRollout]:
        """The rollouts that are not dropped."""
        return without_dropped(self.sampled)


def without_dropped(judged: Sequence[JudgedRollout]) -> list[JudgedRollout]:
    """The rollouts that take part in the step."""
    return [entry for entry in judged if not entry.verdict.is_dropped]


class Part:
    """The life cycle of every plug-in: engines, rollouters, verifiers, contexts, critics. All of it optional.

    Order: :meth:`prepare` before the model is loaded, :meth:`attach` when it is, :meth:`observe` after every optimizer
    step. A checkpoint holds :meth:`state_dict`, which a resume gives back after :meth:`prepare`.
    """

    def prepare(self) -> None:
        """Load files, and raise a clear error for what is wrong with them, before any work is lost."""

    def attach(self, learners: Mapping[str, Any]) -> None:
        """Receive the run's learners by name, once their models are loaded: for parts that generate or read weights."""

    def session(self) -> AbstractContextManager[None]:
        """Entered by every process around work that needs all of them, such as gathered weights."""
        return nullcontext()

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        """Receive an optimizer step's observations from all processes, in the same order on every process.

        What later calls make of them belongs into :meth:`state_dict`.
        """

    def counts(self) -> dict[str, float]:
        """What went wrong so far in this process, by name, to be logged."""
        return {}

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold so that this part continues as before: strings, numbers and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint; called after :meth:`prepare`."""
