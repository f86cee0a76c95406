"""SGSD's teachers: each reads one skill and one mistake from the bank."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sgsd_lightning.contexts.base import ProblemContextBuilder
from sgsd_lightning.prompts.chat import fill
from sgsd_lightning.skills import (
    EvidenceLedger,
    EvidenceSettings,
    LexicalRetriever,
    Pair,
    Retriever,
    Selection,
    SkillBank,
    Weighting,
    check_num_contexts,
    pair_by_rank,
)
from sgsd_lightning.texts.damage import lost_backslashes
from sgsd_lightning.types import Observation, Problem, TeacherContext
from sgsd_lightning.types.arguments import require, require_at_least, require_choice

log = logging.getLogger(__name__)
PLACEHOLDERS = ("title", "principle", "when_to_apply", "description", "why_it_happens", "how_to_avoid")
TEMPLATE = (
    "Skill: {title}\n{principle}\nWhen to apply: {when_to_apply}\n\n"
    "Common mistake: {description}\nWhy it happens: {why_it_happens}\nHow to avoid it: {how_to_avoid}"
)


class SkillPairs(ProblemContextBuilder):
    """K skill-mistake pairs per problem, paired by rank of similarity.

    Args:
        bank: the file of a bank; ``package://some.package/file.json`` names one that an installed package ships.
        retriever: ranks items; None compares words.
        num_contexts: K, the number of pairs, and so of teachers, per problem.
        weighting: ``softmax`` of the pairs' similarities (the paper's), or ``uniform``.
        template: the text of a pair; may hold ``{title}``, ``{principle}``, ``{when_to_apply}``, ``{description}``,
            ``{why_it_happens}`` and ``{how_to_avoid}``. Other braces are literal.
        evidence: how the run's ledger enters retrieval; by default not at all, as in the paper.
    """

    def __init__(
        self,
        bank: str,
        retriever: Retriever | None = None,
        num_contexts: int = 8,
        weighting: Weighting = "softmax",
        template: str = TEMPLATE,
        evidence: EvidenceSettings | None = None,
    ) -> None:
        require_choice(Weighting, "contexts.weighting", weighting)
        require_at_least(1, "contexts.num_contexts", num_contexts)
        shows_something = any("{" + name + "}" in template for name in PLACEHOLDERS)
        known = ", ".join("{" + name + "}" for name in PLACEHOLDERS)
        require(shows_something, "contexts.template", f"hold at least one of {known}", template)
        self.source = bank
        self.retriever = retriever or LexicalRetriever()
        self.num_contexts = num_contexts
        self.weighting: Weighting = weighting
        self.template = template
        self.evidence = evidence or EvidenceSettings()
        self.ledger = EvidenceLedger(self.evidence.half_life_steps, self.evidence.confidence)
        """The evidence on every item so far."""
        self.bank: SkillBank | None = None
        self._selection: Selection | None = None

    def prepare(self) -> None:
        """Load and index the bank, once.

        Raises:
            FileNotFoundError: if there is no such bank.
            ValueError: if it is malformed or too small for ``num_contexts``.
        """
        if self.bank is None:
            bank = SkillBank.load(self.source)
            _warn_of_damage(bank, self.source)
            self.use(bank)

    def use(self, bank: SkillBank) -> None:
        """Replace the bank; only changed items are indexed again."""
        check_num_contexts(bank, self.num_contexts, self.source)
        self.retriever.index(bank)
        self.ledger.describe(bank.items)
        self.bank = bank
        self._selection = None

    def own_texts(self) -> Mapping[str, str]:
        return {} if self.bank is None else {item.item_id: item.text for item in self.bank.items}

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [[self._context(pair) for pair in pairs] for pairs in self.pairs(problems)]

    def pairs(self, problems: Sequence[Problem]) -> list[list[Pair]]:
        """Return the pairs behind :meth:`build`, per problem."""
        self.prepare()
        assert self.bank is not None
        if not problems:
            return []
        if self._selection is None:
            self._selection = Selection(self.bank, self.ledger, self.evidence)
        rankings = [
            self._selection.rank(skills, mistakes, self.num_contexts)
            for skills, mistakes in zip(*self.retriever.similarity(problems), strict=True)
        ]
        return [pair_by_rank(self.bank, skills, mistakes, self.weighting) for skills, mistakes in rankings]

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        """Enter this step's observations into the ledger."""
        self.ledger.observe(step, observations)
        self._selection = None

    def state_dict(self) -> Mapping[str, Any]:
        return {} if self.bank is None else {"bank": self.bank.to_json(), "ledger": self.ledger.to_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The bank of a checkpoint wins over the file: it may have grown since."""
        if "bank" in state:
            self.use(SkillBank.from_json(state["bank"], where="the checkpoint's skill bank"))
        if "ledger" in state:
            self.ledger.load_json(state["ledger"])
            self._selection = None

    def _context(self, pair: Pair) -> TeacherContext:
        values = {name: getattr(pair.skill, name, None) or getattr(pair.mistake, name) for name in PLACEHOLDERS}
        text = fill(self.template, **values)
        return TeacherContext(text=text, weight=pair.weight, source_ids=(pair.skill.skill_id, pair.mistake.mistake_id))


def _warn_of_damage(bank: SkillBank, source: str) -> None:
    """Published banks have such texts, so it is no error."""
    damaged = [item.item_id for item in bank.items if lost_backslashes(item.text)]
    if damaged:
        log.warning(
            "%s: LaTeX of %d items lost its backslashes, such as %s; sgsd skills validate %s lists them",
            source,
            len(damaged),
            damaged[0],
            source,
        )
