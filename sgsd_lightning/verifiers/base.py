"""The contract of a verifier: a rollout in, a verdict out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sgsd_lightning.types import FinishReason, Rollout, Verdict

TruncatedRollouts = Literal["failure", "neutral", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """What a verifier found in one completion."""

    reward: float
    """Above 0 means accepted."""
    answer: str | None
    """The answer as the completion spells it; None where there is none."""


class Verifier(ABC):
    """Judges rollouts. Subclasses grade one; what a truncated rollout means is settled here, for all of them.

    Args:
        truncated_rollouts: what a rollout counts as that ran out of tokens without an accepted answer.
            ``failure``: outcome -1 (the authors' choice; it reverses every teacher that liked the unfinished text).
            ``neutral``: outcome 0, still scored and reported.
            ``dropped``: outcome 0 and not scored. The loss equals that of ``neutral``, since the mean is always
            taken over all sampled rollouts.
    """

    def __init__(self, truncated_rollouts: TruncatedRollouts = "neutral") -> None:
        if truncated_rollouts not in get_args(TruncatedRollouts):
            raise ValueError(
                f"verifier.truncated_rollouts must be one of {get_args(TruncatedRollouts)}; got {truncated_rollouts!r}"
            )
        self.truncated_rollouts = truncated_rollouts

    @abstractmethod
    def grade(self, rollout: Rollout) -> Grade:
        """Compare the completion's answer with the problem's. Must not raise for any completion text."""

    def check_answer(self, answer: str) -> str | None:
        """Say what is wrong with a problem's published answer; None if it can be compared with."""
        return None if answer.strip() else "the answer is empty"

    def grade_all(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        """Grade many; verifiers that work in parallel override this."""
        return [self.grade(rollout) for rollout in rollouts]

    def counts(self) -> dict[str, float]:
        """What went wrong so far in this process, to be logged under ``verifier/``."""
        return {}

    def verify(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Grade every rollout and settle its outcome."""
        return [self._settle(rollout, grade) for rollout, grade in zip(rollouts, self.grade_all(rollouts), strict=True)]

    def _settle(self, rollout: Rollout, grade: Grade) -> Verdict:
        if grade.reward > 0:
            return Verdict(reward=grade.reward, answer=grade.answer, outcome=1)
        if rollout.finish_reason is FinishReason.TRUNCATED and self.truncated_rollouts != "failure":
            is_dropped = self.truncated_rollouts == "dropped"
            return Verdict(reward=grade.reward, answer=grade.answer, outcome=0, is_dropped=is_dropped)
        return Verdict(reward=grade.reward, answer=grade.answer, outcome=-1)
