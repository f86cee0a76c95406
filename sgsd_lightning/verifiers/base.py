"""The contract of a verifier: rollouts in, judged rollouts out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from sgsd_lightning.types import FinishReason, JudgedRollout, Part, RewardSpan, Rollout, Verdict
from sgsd_lightning.types.arguments import require_choice

TruncatedRollouts = Literal["failure", "neutral", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """A verifier's grade of one completion."""

    reward: float | None
    """None: this completion could not be judged, which is no signal and not a zero."""
    answer: str | None
    """The answer as the completion spells it; None if it has none."""
    accepted: bool | None = None
    """Whether the completion counts as right; None takes a reward above 0 for right."""
    spans: tuple[RewardSpan, ...] = ()
    """Dense rewards over the sampled ids, in order."""

    @property
    def is_accepted(self) -> bool | None:
        """Whether the completion counts as right; None if it could not be judged."""
        if self.reward is None or self.accepted is not None:
            return self.accepted if self.reward is not None else None
        return self.reward > 0


class Verifier(Part):
    """Judges rollouts. Subclasses grade one rollout; this class decides what a truncated rollout counts as.

    Args:
        truncated_rollouts: what a rollout counts as if it ran out of tokens without an accepted answer.
            ``failure``: outcome -1 (the authors' choice; it reverses every teacher that liked the unfinished text).
            ``neutral``: outcome 0, still scored and reported.
            ``dropped``: outcome 0 and not scored. The loss equals that of ``neutral``, since the mean is always
            taken over all sampled rollouts.
    """

    def __init__(self, truncated_rollouts: TruncatedRollouts = "neutral") -> None:
        require_choice(TruncatedRollouts, "verifier.truncated_rollouts", truncated_rollouts)
        self.truncated_rollouts = truncated_rollouts

    @abstractmethod
    def grade(self, rollout: Rollout) -> Grade:
        """Compare the completion's answer with the problem's. Must not raise for any completion text."""

    def check_answer(self, answer: str) -> str | None:
        """Return what is wrong with a problem's published answer; None if completions can be compared with it."""
        return None if answer.strip() else "the answer is empty"

    def grade_all(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        """Grade many; verifiers that work in parallel override this."""
        return [self.grade(rollout) for rollout in rollouts]

    def verify(self, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
        """Grade every rollout and settle its outcome.

        Raises:
            ValueError: for grades that are no `Grade`, or of which a field is not what it is to be.
        """
        grades = self.grade_all(rollouts)
        self._check(grades, rollouts)
        return [
            JudgedRollout(rollout=rollout, verdict=self._settle(rollout, grade))
            for rollout, grade in zip(rollouts, grades, strict=True)
        ]

    def _check(self, grades: Any, rollouts: Sequence[Rollout]) -> None:
        """Refuse what a verifier of one's own may return by mistake, which would be read as a judgement."""
        name = f"verifier {type(self).__name__}"
        if not isinstance(grades, list | tuple) or len(grades) != len(rollouts):
            found = f"{len(grades)}" if isinstance(grades, list | tuple) else type(grades).__name__
            raise ValueError(
                f"{name}: grade_all must return a list of one Grade per rollout; got {found} for {len(rollouts)}"
            )
        for grade, rollout in zip(grades, rollouts, strict=True):
            if not isinstance(grade, Grade):
                found = f"{type(grade).__name__} {grade!r}"[:60]
            elif not (grade.reward is None or (isinstance(grade.reward, Real) and math.isfinite(grade.reward))):
                found = f"reward {grade.reward!r}"
            elif not isinstance(grade.accepted, bool | None):
                found = f"accepted {grade.accepted!r}"
            elif not isinstance(grade.answer, str | None):
                found = f"answer {grade.answer!r}"
            else:
                continue
            raise ValueError(
                f"{name}: grade must return a Grade(reward=a finite number or None, answer=a text or None, "
                f"accepted=True, False or None); got {found} for problem {rollout.problem.problem_id!r}"
            )

    def _settle(self, rollout: Rollout, grade: Grade) -> Verdict:
        accepted = grade.is_accepted
        is_cut = rollout.finish_reason is FinishReason.TRUNCATED and self.truncated_rollouts != "failure"
        is_open = accepted is None or (is_cut and not accepted)
        return Verdict(
            reward=None if grade.reward is None else float(grade.reward),
            accepted=accepted,
            outcome=0 if is_open else 1 if accepted else -1,
            answer=grade.answer,
            spans=grade.spans,
            is_dropped=is_cut and not accepted and self.truncated_rollouts == "dropped",
        )
