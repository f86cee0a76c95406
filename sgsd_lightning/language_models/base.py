"""The contract of a language model that writes: chats in, texts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sgsd_lightning.types import Messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a language model said to one chat; exactly one of the two is not None."""

    text: str | None = None
    error: str | None = None
    """Why there is no text: refused, cut off, too late."""


class LanguageModel(ABC):
    """Answers chats, one by one or many at a time."""

    computes_here: bool = False
    """Whether its calls compute in this process, wait for nobody, and so cannot hang. They are not left alone when they
    take too long: they may be using the policy."""

    @abstractmethod
    def answers(self, chats: Sequence[Messages], deadline: float | None = None) -> Iterator[tuple[int, Answer]]:
        """The index of each chat with its answer, each as soon as it is there, in any order.

        Args:
            chats: What to answer.
            deadline: By `time.monotonic`: chats not answered by then get an error that says so. None waits.

        Raises:
            WriterUnavailableError: when no chat at all can be answered, such as for a wrong key or an unknown model.
        """

    def attach(self, model: Any, tokenizer: Any) -> None:
        """Take the policy that is being trained, for language models that are it."""

    def session(self) -> AbstractContextManager[None]:
        """Entered by every process around the calls above, which only the first process makes: for collectives."""
        return nullcontext()
