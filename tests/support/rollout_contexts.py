"""Contexts that read the rollout that they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.types import JudgedRollout, TeacherContext


class EchoContexts(ContextBuilder):
    """Two teachers, which are shown what was sampled and what the verifier said of it.

    Args:
        mark: stands in every text.
    """

    def __init__(self, mark: str = "") -> None:
        self.mark = mark
        self.calls: list[list[JudgedRollout]] = []
        """The rollouts of every call."""

    def contexts_for(
        self, own: Sequence[JudgedRollout], everyone: Mapping[str, Sequence[JudgedRollout]]
    ) -> list[list[TeacherContext]]:
        assert list(everyone) == ["policy"]
        assert list(everyone["policy"]) == list(own)
        self.calls.append(list(own))
        return [
            [
                TeacherContext(text=f"{self.mark}{rollout.completion_ids}", weight=0.75, source_ids=("ids",)),
                TeacherContext(text=f"{self.mark}{outcome:+d}", weight=0.25, source_ids=("outcome",)),
            ]
            for rollout, outcome in ((judged.rollout, judged.verdict.outcome) for judged in own)
        ]
