"""The contract of a skill writer: it drafts items from memories, and merges items."""

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
    """An item without an id, as a writer proposes it."""

    kind: type[Skill] | type[Mistake]
    texts: Mapping[str, str]
    """The text fields of the kind, each of them non-empty."""
    sources: tuple[str, ...]
    """Ids of the memories, or of the merged items, that it comes from; never empty."""
    extra: Mapping[str, Any] | None = None
    """Further keys of the item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """An answer or a draft that could not be used."""

    sources: tuple[str, ...]
    """Ids of the memories or items that it comes from."""
    reason: str
    text: str
    """The language model's whole answer, or the draft's text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The drafts and rejects from one memory, or from one group of items."""

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
        """Yield one result per memory as it arrives, in any order.

        A success yields at most ``MAX_DRAFTS`` drafts of skills, a failure as many of mistakes. An unusable answer is a
        reject with its reason, not an error.

        Args:
            memories: Successes and failures.
            deadline: By `time.monotonic`; memories that are not done by then get a reject. None sets none.

        Raises:
            ModelUnavailableError: when no memory can be answered, such as for a wrong key or an unknown model.
        """

    @abstractmethod
    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        """Merge items of one kind into fewer drafts.

        Each draft names in ``sources`` the ids of the items that it replaces. The caller keeps items that no draft
        names, so that a bad answer loses nothing.
        """

    def attach(self, model: Any, tokenizer: Any) -> None:
        """Receive the policy that is being trained, once it is loaded, for writers that use it."""

    def session(self) -> AbstractContextManager[None]:
        """Return a context, for collectives, that all processes enter while the first one makes the calls above."""
        return nullcontext()
