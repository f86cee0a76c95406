"""The contract of an objective: scores and verdicts in, a loss and its diagnostics out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sgsd_lightning.metrics.measurements import Measurement
from sgsd_lightning.types import Part, ScoreRequest, TeacherStances, TokenScores, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveResult:
    """The result of an objective on one micro-batch of B rollouts and K contexts."""

    loss: Tensor
    """Scalar: the mean over all B rollouts, dropped and neutral ones included as 0."""
    metrics: Mapping[str, Tensor | Measurement] = field(default_factory=dict)
    """Scalars to log, detached, named ``objective/...``; a plain tensor is taken as a mean over the B rollouts."""
    stances: TeacherStances | None = None
    """What was measured of each teacher; None where the objective measures no stance."""


class Objective(Part, ABC):
    """A loss over token scores. Holds settings, and state only as `Part` allows; no weights."""

    @property
    @abstractmethod
    def score_request(self) -> ScoreRequest:
        """What the scorer must compute for this objective."""

    @abstractmethod
    def __call__(self, scores: TokenScores, verdicts: Sequence[Verdict]) -> ObjectiveResult:
        """Evaluate on B rollouts; ``verdicts`` are in the order of the rows of ``scores``."""

    @property
    def needs_teachers(self) -> bool:
        """Whether a rollout without a teacher teaches nothing; False unless overridden."""
        return False

    @property
    def compares_siblings(self) -> bool:
        """Whether a rollout teaches nothing that is alone in its group; False unless overridden."""
        return False

    def token_gate(self, log_ratio: Tensor) -> Tensor | None:
        """Return how much a log-ratio may move the student, in [0, 1], in the shape of ``log_ratio``; for pictures.

        None, the default, if the objective has no gate per token.
        """
        return None
