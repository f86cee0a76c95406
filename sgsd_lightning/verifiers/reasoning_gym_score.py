"""The scorers that reasoning-gym has for its problems, as a verifier."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any, Literal

from sgsd_lightning.types import Problem, Rollout
from sgsd_lightning.types.arguments import require, require_choice
from sgsd_lightning.verifiers.base import Grade, TruncatedRollouts, Verifier
from sgsd_lightning.verifiers.math.boxes import CUT_OFF, boxed_answer

Extraction = Literal["boxed", "last_number", "last_line", "whole"]
MAX_ANSWER_LENGTH = 4096
"""In characters; a longer answer is no answer."""
NUMBER = re.compile(r"(?:(?<![\w.)])-)?\d+(?:\.\d+)?")
RUNS_ANSWERS = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(\s*(?:answer|user_answer|pred\w*|response)\b")
"""In the source of a scorer: an answer is run as Python, by sympy's parser too."""


class ReasoningGymVerifier(Verifier):
    """Grades by the scorer of the problem's own data set, which `ReasoningGymProblems` notes in its metadata.

    The reward is the scorer's, between 0 and 1: many give part of it to an answer that is nearly right, or right with
    other words around it. A scorer that fails over an answer judges nothing, which is counted.

    Args:
        extraction: what is taken for the answer: ``boxed`` the last box; ``last_number`` the last number, as small
            models end a sentence with it; ``last_line`` the last line that is not empty; ``whole`` all of it. Without
            spaces around it.
        accept_from: the smallest reward of a completion that counts as right.
        runs_answers: whether scorers that run an answer as Python may be used; they are refused otherwise, since a
            model's text then does what it likes on this machine, or takes for ever.
        truncated_rollouts: see `Verifier`.

    Raises:
        ValueError: for an ``accept_from`` that is not above 0 and at most 1.
    """

    def __init__(
        self,
        extraction: Extraction = "last_line",
        accept_from: float = 1.0,
        runs_answers: bool = False,
        truncated_rollouts: TruncatedRollouts = "neutral",
    ) -> None:
        super().__init__(truncated_rollouts)
        require_choice(Extraction, "verifier.extraction", extraction)
        require(0 < accept_from <= 1, "verifier.accept_from", "be above 0 and at most 1", accept_from)
        self.extraction = extraction
        self.accept_from = accept_from
        self.runs_answers = runs_answers
        self._scorers: dict[str, Callable[[str, dict[str, Any]], Any]] = {}
        self._num_failures = 0

    def grade(self, rollout: Rollout) -> Grade:
        """Score the answer; a completion without one gets 0.

        Raises:
            ValueError: for a problem that is not reasoning-gym's, or whose scorer is not allowed.
        """
        score = self._scorer(rollout.problem)
        answer = extract(rollout.completion_text, self.extraction)
        if answer is None:
            return Grade(reward=0.0, answer=None)
        try:
            reward = float(score(answer, _entry(rollout.problem)))
        except Exception:  # whatever a scorer does not expect in a model's text
            reward = math.nan
        if not math.isfinite(reward):
            self._num_failures += 1
            return Grade(reward=None, answer=answer)
        return Grade(reward=reward, answer=answer, accepted=reward >= self.accept_from)

    def check_answer(self, answer: str) -> str | None:
        """Return None: where no answer is published, the scorer needs none."""
        return None

    def counts(self) -> dict[str, float]:
        """Count answers over which a scorer failed."""
        return {"scorer_failures": float(self._num_failures)}

    def _scorer(self, problem: Problem) -> Callable[[str, dict[str, Any]], Any]:
        # comparing answers is quick to import, data modules are not
        from sgsd_lightning.data.generated import dataset_classes

        name = problem.metadata.get("source_dataset")
        if not isinstance(name, str):
            raise ValueError(
                f"ReasoningGymVerifier grades problems of ReasoningGymProblems; {problem.problem_id} has no "
                "source_dataset among its columns. Take MathAnswer for mathematical answers"
            )
        if name not in self._scorers:
            dataset, configuration = dataset_classes(name)
            if not self.runs_answers and RUNS_ANSWERS.search(_source(dataset)):
                raise ValueError(
                    f"reasoning-gym's scorer of {name} runs a model's answer as Python; set verifier.runs_answers to "
                    "true if you accept that, in a container for instance, or take another data set"
                )
            self._scorers[name] = dataset(config=configuration()).score_answer
        return self._scorers[name]


def extract(text: str, extraction: Extraction) -> str | None:
    """Return what a completion gives as its answer, without spaces around it; None if that is nothing, or too long."""
    if extraction == "last_number":
        answer = next(reversed(NUMBER.findall(text)), "")
    elif extraction == "boxed":
        found = boxed_answer(text)
        answer = "" if found in (None, CUT_OFF) else str(found)
    else:
        lines = text.strip().splitlines()
        answer = text if extraction == "whole" else lines[-1] if lines else ""
    answer = answer.strip()
    return answer if 0 < len(answer) <= MAX_ANSWER_LENGTH else None


def _entry(problem: Problem) -> dict[str, Any]:
    """What a scorer reads: a problem as reasoning-gym generated it."""
    return {"question": problem.text, "answer": problem.answer or None, "metadata": dict(problem.metadata)}


def _source(dataset: type) -> str:
    """The source of the module that has a data set's scorer."""
    module = inspect.getmodule(dataset.score_answer)  # type: ignore[attr-defined]
    return inspect.getsource(module) if module is not None else ""
