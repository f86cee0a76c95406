"""The contracts of context builders, which decide what each teacher reads beyond the student's prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from sgsd_lightning.skills import EvidenceLedger, SkillBank
from sgsd_lightning.types import JudgedRollout, Part, Problem, TeacherContext


class ContextBuilder(Part):
    """Builds the teachers of every judged rollout of a batch."""

    def own_texts(self) -> Mapping[str, str]:
        """By id, the texts from outside that it shows beside the problem's, such as a bank's items."""
        return {}

    @abstractmethod
    def contexts_for(
        self, own: Sequence[JudgedRollout], everyone: Mapping[str, Sequence[JudgedRollout]]
    ) -> list[list[TeacherContext]]:
        """Return one list per rollout of ``own``; the weights of each non-empty list add up to 1.

        Called once per batch of judged rollouts; the result is kept as long as the rollouts are.

        Args:
            own: The rollouts of the policy to teach, without dropped ones.
            everyone: The judged rollouts of all policies by name, including this one's.
        """


class ProblemContextBuilder(ContextBuilder):
    """Builds contexts that depend on the problem alone: the only kind that students and evaluation may be shown."""

    @abstractmethod
    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        """Return one list per problem; the weights of each non-empty list add up to 1.

        The result for a problem must depend on that problem and the builder's state alone, never on its neighbours.
        """

    def contexts_for(
        self, own: Sequence[JudgedRollout], everyone: Mapping[str, Sequence[JudgedRollout]]
    ) -> list[list[TeacherContext]]:
        """Call :meth:`build` once per problem; its rollouts share the contexts."""
        problems = list({judged.rollout.problem.problem_id: judged.rollout.problem for judged in own}.values())
        pools = {problem.problem_id: pool for problem, pool in zip(problems, self.build(problems), strict=True)}
        return [pools[judged.rollout.problem.problem_id] for judged in own]


@runtime_checkable
class BankContexts(Protocol):
    """What `BankMaintenance` needs of a context builder: a bank that can be replaced, and the evidence on its items."""

    bank: SkillBank | None
    """None before `Part.prepare`."""
    ledger: EvidenceLedger
    num_contexts: int
    """How many items of each kind the builder needs."""

    def use(self, bank: SkillBank) -> None:
        """Take another bank from now on."""
        ...


class NoContext(ProblemContextBuilder):
    """No teachers: for objectives that need none, such as a policy gradient."""

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [[] for _ in problems]


def student_guidance(
    builder: ProblemContextBuilder | None, problems: Sequence[Problem]
) -> dict[str, TeacherContext | None]:
    """Return by problem id one context with the texts of all contexts, for the student's prompt; None without any."""
    pools = [[] for _ in problems] if builder is None else builder.build(problems)
    return {problem.problem_id: _unite(pool) for problem, pool in zip(problems, pools, strict=True)}


def _unite(pool: Sequence[TeacherContext]) -> TeacherContext | None:
    texts = [context.text for context in pool if context.text]
    if not texts:
        return None
    sources = tuple(source for context in pool for source in context.source_ids)
    return TeacherContext(text="\n\n".join(texts), weight=1.0, source_ids=sources)
