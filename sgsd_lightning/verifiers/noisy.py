"""A verifier that errs on purpose, to measure how robust a method is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from sgsd_lightning.types import Rollout
from sgsd_lightning.types.arguments import require
from sgsd_lightning.verifiers.base import Grade, Verifier


class NoisyVerifier(Verifier):
    """Flips a fraction of another verifier's verdicts: accepted to rejected, and rejected to accepted.

    Which verdicts are flipped depends on the seed, the problem and the completion alone, and so is reproducible.

    Args:
        verifier: the verifier whose verdicts are flipped; it decides what truncated rollouts count as.
        flip_frac: the fraction of verdicts that are flipped, in [0, 1].
        seed: decides which verdicts are flipped.
    """

    def __init__(self, verifier: Verifier, flip_frac: float, seed: int = 0) -> None:
        require(0 <= flip_frac <= 1, "verifier.flip_frac", "be in [0, 1]", flip_frac)
        super().__init__(verifier.truncated_rollouts)
        self.verifier = verifier
        self.flip_frac = flip_frac
        self.seed = seed

    def grade(self, rollout: Rollout) -> Grade:
        return self.grade_all([rollout])[0]

    def grade_all(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        grades = self.verifier.grade_all(rollouts)
        return [
            _flip(grade) if self._is_flipped(rollout) else grade
            for rollout, grade in zip(rollouts, grades, strict=True)
        ]

    def check_answer(self, answer: str) -> str | None:
        return self.verifier.check_answer(answer)

    def counts(self) -> dict[str, float]:
        return self.verifier.counts()

    def _is_flipped(self, rollout: Rollout) -> bool:
        text = repr((self.seed, rollout.problem.problem_id, rollout.completion_ids))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < self.flip_frac * 2**64


def _flip(grade: Grade) -> Grade:
    """Flip a grade; one without a judgement stays as it is."""
    if grade.is_accepted is None:
        return grade
    return replace(grade, reward=0.0 if grade.is_accepted else 1.0, accepted=None)
