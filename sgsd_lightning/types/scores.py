"""The scorer's input and output: token sequences, teacher contexts, rows, and scores per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sgsd_lightning.types.rollouts import Messages

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSequence:
    """The input of one forward pass, and the ids that are predicted from its positions."""

    input_ids: tuple[int, ...]
    """[L], at least one."""
    predicted_from: tuple[int, ...]
    """[N]: for each target the index into ``input_ids`` of the position whose hidden state predicts it."""
    targets: tuple[int, ...]
    """[N] ids."""
    is_causal: bool = True
    """Whether a position attends to earlier ones only; False lets every position attend to all L."""

    @classmethod
    def causal(cls, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> TokenSequence:
        """A prompt and the completion that follows it, every id predicted from the position before it.

        The model need not read the completion's last id.

        Raises:
            ValueError: for an empty prompt, because the first id then has no position to be predicted from.
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
        """Ids that may be computed once for several sequences: all up to the first prediction; none if not causal."""
        if not self.is_causal or not self.predicted_from:
            return self.input_ids if self.is_causal else ()
        return self.input_ids[: self.predicted_from[0] + 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherContext:
    """What one teacher reads beyond the student's prompt: a text, a whole chat, or token sequences."""

    text: str = ""
    """Privileged text for the teacher's user turn; empty for the student's own prompt."""
    messages: Messages | None = None
    """A whole chat that replaces the student's."""
    sequences: tuple[TokenSequence, ...] | None = None
    """Ready token sequences, whose targets are the rollout's ids in order."""
    weight: float
    """context_weight: the weights of one rollout's contexts add up to 1."""
    source_ids: tuple[str, ...] = ()
    """Ids of its sources: ("gen_001", "err_004") for a skill-mistake pair."""

    def __post_init__(self) -> None:
        given = [name for name in ("text", "messages", "sequences") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"a teacher context shows one of text, messages and sequences; got {' and '.join(given)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One rollout as the scorer reads it: T sampled ids in the student's sequences and in those of K_b teachers."""

    student: tuple[TokenSequence, ...]
    """Their targets in order are the T ids; empty if nothing was sampled."""
    teachers: tuple[tuple[TokenSequence, ...], ...] = ()
    """K_b of them, each with the same targets in the same order."""
    context_weight: tuple[float, ...] = ()
    """[K_b], adding up to 1 if there is a teacher."""
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
    """What an objective needs besides the log-probabilities of the sampled tokens."""

    entropy: bool = True
    support_top_k: int = -1
    """Above 0: restrict both distributions to the teacher's top-k tokens plus the sampled one; -1 is off."""
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

    Only these scalars are padded, not the model's inputs. Padded entries are 0 and False.
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
