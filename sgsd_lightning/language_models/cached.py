"""A language model with a cache in front of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sgsd_lightning.language_models.base import Answer, LanguageModel
from sgsd_lightning.language_models.cache import AnswerCache
from sgsd_lightning.language_models.identity import digest
from sgsd_lightning.types import Messages


class CachedModel(LanguageModel):
    """Wraps a language model: replies are stored in a file, and read from it when the same call is made again.

    The key of a reply is a digest of the model's identity (weights, sampling settings, seed), the whole chat, the
    attempt and the prompt files (`for_prompts`). Replies are kept as they were received, also those that a judge cannot
    parse; an error is never kept. Equal chats in one batch are asked once.

    Args:
        model: who is asked where the file has no reply.
        path: the file, of JSON Lines; several processes and runs may share it.
    """

    def __init__(self, model: LanguageModel, path: str) -> None:
        self.model = model
        self.path = path
        self.computes_here = model.computes_here
        self._cache = AnswerCache(path)
        self._prompts_digest = ""
        self._counts = {"cache_hits": 0, "cache_misses": 0}

    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        if not chats:
            return
        model = dict(self.identity())
        places: dict[str, list[int]] = {}
        for index, chat in enumerate(chats):
            places.setdefault(self._key(model, chat, attempt), []).append(index)
        missing = []
        for key, indices in places.items():
            reply = self._cache.find(key)
            if reply is None:
                missing.append(key)
                continue
            self._counts["cache_hits"] += len(indices)
            yield from ((index, Answer(text=reply, is_cached=True)) for index in indices)
        yield from self._ask_missing(missing, places, chats, deadline, attempt, model)

    def counts(self) -> dict[str, int]:
        """Return how many chats were answered from the file, and how many calls were made."""
        return dict(self._counts)

    def identity(self) -> Mapping[str, Any]:
        return self.model.identity()

    def for_prompts(self, digest: str) -> CachedModel:
        """Return a view of this model for one set of prompt files, sharing its file and its counts."""
        view = copy.copy(self)
        view._prompts_digest = digest
        return view

    def attach(self, model: Any, tokenizer: Any) -> None:
        self.model.attach(model, tokenizer)

    def session(self) -> AbstractContextManager[None]:
        return self.model.session()

    def _key(self, model: Mapping[str, Any], chat: Messages, attempt: int) -> str:
        return digest([model, [dict(message) for message in chat], attempt, self._prompts_digest])

    def _ask_missing(
        self,
        keys: Sequence[str],
        places: Mapping[str, Sequence[int]],
        chats: Sequence[Messages],
        deadline: float | None,
        attempt: int,
        model: Mapping[str, Any],
    ) -> Iterator[tuple[int, Answer]]:
        """Ask the model for the replies that the file lacks; each is on disk before it is yielded."""
        if not keys:
            return
        self._counts["cache_misses"] += len(keys)
        wanted = [chats[places[key][0]] for key in keys]
        for place, answer in self.model.answers(wanted, deadline, attempt=attempt):
            if answer.text is not None:
                about = {
                    "model": model,
                    "attempt": attempt,
                    "prompts": self._prompts_digest,
                    "chat": [dict(message) for message in wanted[place]],
                }
                self._cache.add(keys[place], answer.text, about)
            first, *others = places[keys[place]]
            yield first, answer
            # no call was made for these
            copied = answer if answer.text is None else replace(answer, is_cached=True)
            yield from ((index, copied) for index in others)
