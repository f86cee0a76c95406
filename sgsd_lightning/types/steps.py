"""The data of one micro-batch of training, and its records for tables, ledgers and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgsd_lightning.types.scores import ScoreRow, TeacherContext
from sgsd_lightning.types.verdicts import JudgedRollout, without_dropped

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Taught:
    """A micro-batch of judged rollouts and their teachers, from which a loss is computed; kept with reused rollouts."""

    sampled: Sequence[JudgedRollout]
    """All of them, dropped ones included."""
    contexts: Sequence[Sequence[TeacherContext]]
    """Per rollout that is not dropped, those of its teachers whose prompts fit."""
    rows: Sequence[ScoreRow]
    """Per rollout that is not dropped."""
    num_over_long: int
    """The number of teachers left out because their prompt exceeds ``max_prompt_tokens``."""

    @property
    def scored(self) -> list[JudgedRollout]:
        """The rollouts that are not dropped."""
        return without_dropped(self.sampled)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherStances:
    """Measurements of an objective on K teachers of B rollouts, each [B, K], detached."""

    stance_score: Tensor
    """Nats per token."""
    stance: Tensor
    """+1 if the teacher finds the rollout likelier than the student does, -1 if less likely, 0 neither or absent."""
    polarity: Tensor
    """+1 helpful, -1 misleading, 0 neutral or absent."""
    gated_loss: Tensor
    """Nats per token: the gated loss of each teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stance:
    """`TeacherStances` of one rollout and one teacher."""

    stance_score: float
    stance: int
    polarity: int
    gated_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """The record of one micro-batch of training, for tables, ledgers and pictures."""

    judged: Sequence[JudgedRollout]
    """The rollouts that were scored."""
    contexts: Sequence[Sequence[TeacherContext]]
    """Per rollout, K_b of them."""
    stances: Sequence[Sequence[Stance]]
    """Per rollout and context; empty if the objective measures none."""
    loss_mask: Tensor
    """[B, T] bool: the tokens that counted."""
    student_logprob: Tensor
    """[B, T] float32 nats, detached."""
    log_ratio: Tensor
    """[B, K, T] float32 nats, detached: teacher minus student; meaningless outside ``loss_mask``."""
    is_reused: bool = False
    """Whether an earlier optimizer step used the same rollouts."""
    policy: str = "policy"
    """The name of the policy that is trained on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One teacher's measured effect on one rollout."""

    source_ids: tuple[str, ...]
    """Source ids of the teacher's context."""
    outcome: int
    """The rollout's outcome: +1, -1, 0."""
    polarity: int
    """Outcome times stance: +1 helpful, -1 misleading, 0 neutral; also if the objective treats every teacher as
    helpful."""
    stance_score: float
    """Nats per token."""
    gated_loss: float
    """Nats per token."""
