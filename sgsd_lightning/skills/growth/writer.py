"""The contract of a skill writer: memories in, drafts of skills and mistakes out; many items in, fewer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.growth.memories import Memory

MAX_DRAFTS = 3
"""The most drafts from one memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An item that a writer proposes, before it has an id."""

    kind: type[Skill] | type[Mistake]
    texts: Mapping[str, str]
    """The kind's text fields without its id, every one of them non-empty."""
    sources: tuple[str, ...]
    """Ids of the memories, or of the merged items, that it comes from; never empty."""
    extra: Mapping[str, Any] | None = None
    """What else is to stand in the item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """Something that a writer or a guard could not use."""

    sources: tuple[str, ...]
    """Ids of the memories or items that it comes from."""
    reason: str
    text: str
    """What was said: a language model's whole answer, or the draft's text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What came of one memory, or of one group of items."""

    sources: tuple[str, ...]
    """Ids of the memories or items that were shown."""
    drafts: tuple[Draft, ...] = ()
    rejects: tuple[Reject, ...] = ()


class SkillWriter(ABC):
    """Writes skills from successes, mistakes from failures, and merges items that say the same."""

    computes_here: bool = False
    """Whether its calls compute in this process, wait for nobody, and so cannot hang. They are not left alone when they
    take too long: they may be using the policy."""

    @abstractmethod
    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        """One result a memory, each as soon as it is there, in any order.

        A success yields at most ``MAX_DRAFTS`` drafts of skills, a failure as many of mistakes. What cannot be used is
        a reject with the reason; nothing is raised for it.

        Args:
            memories: What to write from.
            deadline: By `time.monotonic`: memories not done by then get a reject that says so. None waits.

        Raises:
            ModelUnavailableError: when no answer can be had at all (an endpoint that refuses, no such model).
        """

    @abstractmethod
    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        """Fewer items that say the same as these, all of one kind.

        Each draft names in ``sources`` the ids of the items that it stands for. Items that no draft names are kept as
        they are by the caller, so that a bad answer loses nothing.
        """

    def attach(self, model: Any, tokenizer: Any) -> None:
        """Take the policy that is being trained, for writers that use it; called once it is loaded."""

    def session(self) -> AbstractContextManager[None]:
        """Entered by every process around the calls above, which only the first process makes: for collectives."""
        return nullcontext()
