"""The verifier of mathematical answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sgsd_lightning.texts.damage import lost_in_formula
from sgsd_lightning.types import Rollout
from sgsd_lightning.types.arguments import require
from sgsd_lightning.verifiers.base import Grade, TruncatedRollouts, Verifier
from sgsd_lightning.verifiers.math.equivalence import TIME_LIMIT_S, math_equal
from sgsd_lightning.verifiers.math.extraction import extract_answer
from sgsd_lightning.verifiers.math.normalization import MAX_LENGTH, normalize
from sgsd_lightning.verifiers.math.placeholders import is_placeholder
from sgsd_lightning.verifiers.math.process import MATH_PROCESS, MAX_WORKERS


class MathAnswer(Verifier):
    """Reward 1 for a completion whose last answer equals the problem's, 0 otherwise.

    Args:
        truncated_rollouts: see :class:`Verifier`.
        time_limit_s: the longest that one comparison of expressions may take, in seconds.

    Raises:
        ValueError: if ``time_limit_s`` is not above 0 and finite.
    """

    def __init__(self, truncated_rollouts: TruncatedRollouts = "neutral", time_limit_s: float = TIME_LIMIT_S) -> None:
        super().__init__(truncated_rollouts)
        require(0 < time_limit_s < math.inf, "verifier.time_limit_s", "be above 0 and finite", time_limit_s)
        self.time_limit_s = time_limit_s

    def grade(self, rollout: Rollout) -> Grade:
        answer = extract_answer(rollout.completion_text)
        is_right = answer is not None and math_equal(answer, rollout.problem.answer, self.time_limit_s)
        return Grade(reward=float(is_right), answer=answer)

    def grade_all(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        """Grade in parallel, so that several hard comparisons take the time of one."""
        if len(rollouts) < 2:
            return [self.grade(rollout) for rollout in rollouts]
        with ThreadPoolExecutor(min(len(rollouts), MAX_WORKERS)) as threads:
            return list(threads.map(self.grade, rollouts))

    def counts(self) -> dict[str, float]:
        """Count comparisons that ran out of time, and workers that died."""
        return {"timeouts": float(MATH_PROCESS.num_timeouts), "crashes": float(MATH_PROCESS.num_crashes)}

    def check_answer(self, answer: str) -> str | None:
        """Return why completions cannot be compared with an answer; None if they can.

        Formulas, numbers, words and choice letters are fine. Empty texts, signs alone, unfinished or damaged LaTeX and
        words for no answer (``proof``, ``N/A``, ``NaN``) are not.
        """
        if len(answer) > MAX_LENGTH:
            return f"it is longer than {MAX_LENGTH} characters"
        # letters and digits are what a value is made of
        if not any(character.isalnum() for character in normalize(answer)):
            return "nothing of it is left to compare with"
        if is_placeholder(answer):
            return "it says that there is no answer to compare with"
        damage = lost_in_formula(answer)
        if damage:
            return f"LaTeX lost its backslash, {damage[0]}"
        if not _is_balanced(answer):
            return "its braces { } do not match"
        return None


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text.replace(r"\\", "").replace(r"\{", "").replace(r"\}", ""):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
