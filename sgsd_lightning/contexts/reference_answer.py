"""One teacher that reads the reference solution or answer: the context of OPSD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sgsd_lightning.contexts.base import ProblemContextBuilder
from sgsd_lightning.prompts.chat import fill
from sgsd_lightning.types import Problem, TeacherContext
from sgsd_lightning.types.arguments import require, require_choice

Shown = Literal["solution", "answer"]


class ReferenceAnswer(ProblemContextBuilder):
    """Shows the problem's worked solution, or only its answer.

    Args:
        show: ``solution`` or ``answer``.
        template: the text; must hold ``{reference}``.
    """

    def __init__(self, show: Shown = "solution", template: str = "Reference solution:\n{reference}") -> None:
        require_choice(Shown, "contexts.show", show)
        require("{reference}" in template, "contexts.template", "hold {reference}", template)
        self.show = show
        self.template = template

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [[self._context(problem)] for problem in problems]

    def _context(self, problem: Problem) -> TeacherContext:
        reference = problem.solution if self.show == "solution" else problem.answer
        if not reference:
            raise ValueError(
                f"problem {problem.problem_id!r} has no solution to show; give its source a field for it "
                "(fields.solution), or set contexts.show to answer"
            )
        text = fill(self.template, reference=reference)
        return TeacherContext(text=text, weight=1.0, source_ids=("reference",))
