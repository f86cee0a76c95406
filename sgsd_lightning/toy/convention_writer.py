"""The toy world's skill writer: reads off a trace which conventions it followed, and says so in the bank's words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Draft, Reject, SkillWriter, Written
from sgsd_lightning.toy.bank import load_toy_bank
from sgsd_lightning.toy.problems import ALL_CONVENTIONS, Convention, Minus, Precedence, trace

_SKILL_TEXTS = ("title", "principle", "when_to_apply")
_MISTAKE_TEXTS = ("description", "why_it_happens", "how_to_avoid")
_ADVICE = {
    Precedence.MULTIPLICATION_FIRST: ("precedence", "helpful"),
    Precedence.LEFT_TO_RIGHT: ("precedence", "misleading"),
    Minus.WRAP: ("minus", "helpful"),
}
"""The subject and truth of the toy bank's items that advise a convention; none advises the other minus."""
_OPPOSITE = {
    Precedence.MULTIPLICATION_FIRST: Precedence.LEFT_TO_RIGHT,
    Precedence.LEFT_TO_RIGHT: Precedence.MULTIPLICATION_FIRST,
    Minus.WRAP: Minus.ABSOLUTE,
    Minus.ABSOLUTE: Minus.WRAP,
}


class ConventionWriter(SkillWriter):
    """A rule instead of a language model, with a language model's faults.

    A success becomes a skill that advises what it did, a failure a mistake that advises the opposite. The verifier
    knows answers alone: a right answer by a wrong convention becomes a misleading skill, and a failure of the minus a
    mistake that speaks against the right order of operations. Sorting these out is left to evidence.

    The base model understands the toy bank's sentences and hardly any others, so items are made of them.
    """

    computes_here = True

    def __init__(self) -> None:
        bank = load_toy_bank()
        self._skills = _by_advice(bank["general_skills"])
        self._mistakes = _by_advice(bank["common_mistakes"])

    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        for memory in memories:
            followed = followed_conventions(memory.problem, memory.completion)
            drafts = [draft for convention in followed if (draft := self._draft(memory, convention)) is not None]
            reason = "the completion follows no convention that tells it from the others"
            reject = Reject(sources=(memory.memory_id,), reason=reason, text=memory.completion)
            yield Written(sources=(memory.memory_id,), drafts=tuple(drafts), rejects=() if followed else (reject,))

    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        """Nothing: the same advice is given in the same words, which similarity finds."""
        return Written(sources=tuple(item.item_id for item in items))

    def _draft(self, memory: Memory, convention: Precedence | Minus) -> Draft | None:
        kind: type[Skill] | type[Mistake] = Skill if memory.is_success else Mistake
        advised = convention if memory.is_success else _OPPOSITE[convention]
        names = _SKILL_TEXTS if memory.is_success else _MISTAKE_TEXTS
        choices = (self._skills if memory.is_success else self._mistakes).get(_ADVICE.get(advised, ("", "")), [])
        if not choices:
            return None
        chosen = choices[int(hashlib.sha256(memory.memory_id.encode()).hexdigest(), 16) % len(choices)]
        return Draft(
            kind=kind,
            texts={name: chosen[name] for name in names},
            sources=(memory.memory_id,),
            extra={"toy_truth": chosen["toy_truth"], "toy_subject": chosen["toy_subject"]},
        )


def followed_conventions(problem: str, completion: str) -> list[Precedence | Minus]:
    """What a completion's steps say about how it read the problem; nothing where every reading takes the same steps."""
    traces = {convention: trace(problem, convention) for convention in ALL_CONVENTIONS}
    followed = [convention for convention, text in traces.items() if text == completion.strip()]
    found: list[Precedence | Minus] = []
    for member in _members(followed, "precedence") + _members(followed, "minus"):
        others = [
            text for convention, text in traces.items() if member not in (convention.precedence, convention.minus)
        ]
        if completion.strip() not in others:
            found.append(member)
    return found


def _members(conventions: Sequence[Convention], name: str) -> list[Precedence | Minus]:
    return list(dict.fromkeys(getattr(convention, name) for convention in conventions))


def _by_advice(items: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in items:
        groups.setdefault((item["toy_subject"], item["toy_truth"]), []).append(item)
    return groups
