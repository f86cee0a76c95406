"""The contract of a context builder: problems in, what each of their teachers sees out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from sgsd_lightning.types import Observation, Problem, TeacherContext


class ContextBuilder(ABC):
    """Builds the pool of teacher contexts of every problem in a batch."""

    @abstractmethod
    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        """One list a problem; the weights of each non-empty list add up to 1.

        The result for a problem must depend on that problem and the builder's state alone, never on its neighbours.
        """

    def prepare(self) -> None:
        """Load what :meth:`build` needs, and raise a clear error for what is wrong with it, before training starts."""

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        """Take up what the teachers of all processes turned out to be in an optimizer step.

        Called once it is taken, with the same observations in the same order on every process. What :meth:`build`
        makes of them belongs into :meth:`state_dict`.
        """

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold so that :meth:`build` goes on as before: strings, numbers and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint; called after :meth:`prepare`."""


class NoContext(ContextBuilder):
    """No teachers: for objectives that need none, such as a policy gradient."""

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [[] for _ in problems]


def guidance_of(builder: ContextBuilder | None, problems: Sequence[Problem]) -> dict[str, TeacherContext | None]:
    """By problem id, one text of all contexts that a builder has for it, as a student is shown them; None for none."""
    pools = [[] for _ in problems] if builder is None else builder.build(problems)
    return {problem.problem_id: _united(pool) for problem, pool in zip(problems, pools, strict=True)}


def _united(pool: Sequence[TeacherContext]) -> TeacherContext | None:
    texts = [context.text for context in pool if context.text]
    if not texts:
        return None
    sources = tuple(source for context in pool for source in context.source_ids)
    return TeacherContext(text="\n\n".join(texts), weight=1.0, source_ids=sources)
