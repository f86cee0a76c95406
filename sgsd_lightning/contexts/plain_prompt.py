"""One teacher under the student's own prompt, as the reference of a KL penalty."""

from __future__ import annotations

from collections.abc import Sequence

from sgsd_lightning.contexts.base import ProblemContextBuilder
from sgsd_lightning.types import Problem, TeacherContext


class PlainPrompt(ProblemContextBuilder):
    """The student's own prompt; with frozen teacher weights, the reference of a KL penalty."""

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [[TeacherContext(text="", weight=1.0, source_ids=("plain",))] for _ in problems]
