"""The leak guard: an item must reveal neither the answer that its writer saw nor an evaluation problem."""

from __future__ import annotations

from collections.abc import Iterable

from sgsd_lightning.skills.leaks.answers import contains_answer
from sgsd_lightning.skills.leaks.evaluation_problems import EvaluationProblems


class LeakGuard:
    """Refuses items that reveal an answer or an evaluation problem.

    Args:
        evaluation_texts: the problems of all evaluations; if empty, only answers are guarded.
        ngram_words: the length of a run of words of an evaluation problem that is refused.
    """

    def __init__(self, evaluation_texts: Iterable[str] = (), ngram_words: int = 8) -> None:
        self.evaluation = EvaluationProblems(evaluation_texts, ngram_words)

    def check(self, texts: Iterable[str], problem: str = "", reference_answer: str = "") -> str | None:
        """Return why an item must not be used; None if it may.

        Args:
            texts: The item's texts, without its id.
            problem: The problem that it comes from; "" if unknown.
            reference_answer: That problem's answer; "" if unknown.
        """
        texts = list(texts)
        if problem and self.evaluation.contains(problem):
            return "it comes from an evaluation problem"
        if contains_answer(texts, reference_answer):
            return f"it contains the answer of the problem it comes from, {reference_answer.strip()!r}"
        for text in texts:
            if (shared := self.evaluation.overlap(text)) is not None:
                return f"it shares words with an evaluation problem: {shared!r}"
        return None
