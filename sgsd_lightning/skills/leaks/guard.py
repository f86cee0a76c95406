"""Leak guards: what an item must not give away, the answer that its writer saw and the problems of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from sgsd_lightning.skills.leaks.answers import answer_in
from sgsd_lightning.skills.leaks.evaluation_problems import EvaluationProblems


class LeakGuard:
    """Refuses items that give something away.

    Args:
        evaluation_texts: the problems of all evaluations; none leaves only answers to be guarded.
        ngram_words: how many words in a row of an evaluation problem are too many.
    """

    def __init__(self, evaluation_texts: Iterable[str] = (), ngram_words: int = 8) -> None:
        self.evaluation = EvaluationProblems(evaluation_texts, ngram_words)

    def check(self, texts: Iterable[str], problem: str = "", reference_answer: str = "") -> str | None:
        """Why an item must not be used; None where it may.

        Args:
            texts: The item's texts, without its id.
            problem: The problem that it comes from; "" where that is not known.
            reference_answer: That problem's answer; "" where that is not known.
        """
        texts = list(texts)
        if problem and self.evaluation.contains(problem):
            return "it comes from an evaluation problem"
        if answer_in(texts, reference_answer):
            return f"it contains the answer of the problem it comes from, {reference_answer.strip()!r}"
        for text in texts:
            if (shared := self.evaluation.overlap(text)) is not None:
                return f"it shares words with an evaluation problem: {shared!r}"
        return None
