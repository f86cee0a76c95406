"""The contract of a language model that writes, judges or criticises: chats in, texts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from sgsd_lightning.types import Messages

TOO_LATE = "not answered before the deadline"
"""The error of a chat that was not answered before the deadline."""


class ModelUnavailableError(RuntimeError):
    """A language model answers nothing at all; the message names it, the cause and the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a language model replied to one chat; exactly one of ``text`` and ``error`` is not None."""

    text: str | None = None
    error: str | None = None
    """Why there is no text: refused, cut off, too late."""
    is_cached: bool = field(default=False, compare=False)
    """Whether the text was read from a cache, so that no call was made."""

    @property
    def is_late(self) -> bool:
        """Whether the deadline passed before the chat was answered."""
        return self.error == TOO_LATE


class LanguageModel(ABC):
    """A model that answers chats, one at a time or many at once."""

    computes_here: bool = False
    """Whether its calls compute in this process and wait for nobody, so that they cannot hang. Such calls are not
    abandoned when they take too long: they may be using the policy."""

    @abstractmethod
    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        """Yield (index of the chat, answer) pairs as answers arrive, in any order.

        Args:
            chats: What to answer.
            deadline: By `time.monotonic`: chats not answered by then get the error `TOO_LATE`. None waits.
            attempt: Selects the seed: another number samples another answer to the same chat.

        Raises:
            ModelUnavailableError: when no chat at all can be answered, such as for a wrong key or an unknown model.
        """

    def identity(self) -> Mapping[str, Any]:
        """Return, as JSON values, all that an answer depends on besides the chat and the attempt.

        That is the model with its weights, the sampling settings, the seed and the chat template. A cache keys answers
        by it, and asks for it before every batch: a model whose weights change returns another identity.

        Raises:
            NotImplementedError: where a class does not say; its answers cannot be cached.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no identity(), so no cache can keep its answers; define it, or use no cache"
        )

    def for_prompts(self, digest: str) -> LanguageModel:
        """Return a model that keeps its cached answers apart by this digest of the caller's prompt files.

        A model without a cache returns itself.
        """
        return self

    def attach(self, model: Any, tokenizer: Any) -> None:
        """Receive the policy that is being trained, for language models that are this policy."""

    def session(self) -> AbstractContextManager[None]:
        """Return a context, for collectives, that all processes enter while the first one makes the calls above."""
        return nullcontext()
