"""Language models behind an OpenAI-compatible endpoint: a service, vLLM, SGLang, `transformers serve` and the like."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from sgsd_lightning.language_models.base import TOO_LATE, Answer, LanguageModel, ModelUnavailableError
from sgsd_lightning.types import Messages
from sgsd_lightning.types.arguments import require, require_at_least

NO_KEY = "no-key"
"""Sent when no key is set: local servers need none, but the client requires one."""


class _Found(NamedTuple):
    place: int
    answer: Answer
    refusal: str | None = None
    """Why this call suggests that no chat at all can be answered."""


class EndpointModel(LanguageModel):
    """Chat completions over HTTP; needs the extra ``skills``.

    Up to ``max_concurrent`` calls run at once. Temporary failures (429, 5xx, a broken connection) are retried with
    exponential backoff, or after the time that the server asks for.

    Args:
        base_url: the endpoint including its version, such as ``http://localhost:8000/v1``.
        model_name: the name under which the endpoint serves the model.
        api_key_env: the environment variable that holds the key; may be unset for servers that need none.
        max_new_tokens: the longest answer; a longer one is an error of its chat.
        temperature: the sampling temperature; 0 is greedy.
        max_concurrent: the most calls at once.
        max_retries: how often a failed call is repeated.
        timeout_seconds: per attempt of a call.
        seed: sent with each call, for servers that support it; null sends none. A second attempt sends ``seed + 1``.
    """

    def __init__(
        self,
        base_url: str,
        model_name: str,
        api_key_env: str = "OPENAI_API_KEY",
        max_new_tokens: int = 1024,
        temperature: float = 0.7,
        max_concurrent: int = 8,
        max_retries: int = 5,
        timeout_seconds: float = 120.0,
        seed: int | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"language_model.base_url must begin with http:// or https://; got {base_url}")
        require(model_name.strip() != "", "language_model.model_name", "name a model", model_name)
        require_at_least(1, "language_model.max_new_tokens", max_new_tokens)
        require(0 <= temperature < math.inf, "language_model.temperature", "be 0 or more, and finite", temperature)
        require_at_least(1, "language_model.max_concurrent", max_concurrent)
        require(max_retries >= 0, "language_model.max_retries", "be 0 or more", max_retries)
        require(timeout_seconds > 0, "language_model.timeout_seconds", "be above 0", timeout_seconds)
        self.base_url = base_url
        self.model_name = model_name
        self.api_key_env = api_key_env
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.max_concurrent = max_concurrent
        self.max_retries = max_retries
        self.timeout_seconds = timeout_seconds
        self.seed = seed

    def identity(self) -> Mapping[str, Any]:
        return {
            "endpoint": self.base_url,
            "model": self.model_name,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        client = self._client()
        found: SimpleQueue[_Found | BaseException | None] = SimpleQueue()
        stop = asyncio.Event()
        loop = asyncio.new_event_loop()
        calls = self._calls(client, chats, deadline, attempt, found.put, stop)
        # a thread: calls continue while the caller handles an answer, and the caller may run an event loop itself
        thread = Thread(target=_run, args=(loop, calls, found.put), name="endpoint", daemon=True)
        thread.start()
        try:
            yield from _until_refused(found)
        finally:
            with suppress(RuntimeError):  # the loop is closed once all calls are done
                loop.call_soon_threadsafe(stop.set)
            thread.join()

    async def _calls(
        self,
        client: Any,
        chats: Sequence[Messages],
        deadline: float | None,
        attempt: int,
        put: Callable[[_Found], None],
        stop: asyncio.Event,
    ) -> None:
        """Make all calls, ``max_concurrent`` at once, and cancel the rest when the caller stops iterating."""
        places = asyncio.Semaphore(self.max_concurrent)

        async def call(index: int, chat: Messages) -> None:
            put(await self._answer(client, places, index, chat, deadline, attempt))

        async def every_call() -> None:
            await asyncio.gather(*(call(index, chat) for index, chat in enumerate(chats)))

        everything, stopped = asyncio.create_task(every_call()), asyncio.create_task(stop.wait())
        await asyncio.wait({everything, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        everything.cancel()  # and with it every call
        ended, _ = await asyncio.gather(everything, stopped, return_exceptions=True)
        await client.close()
        if isinstance(ended, Exception):  # a fault of ours: those of a call are its answer
            raise ended

    def _client(self) -> Any:
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise ImportError("EndpointModel needs the package openai: pip install 'sgsd-lightning[skills]'") from None
        return AsyncOpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_env) or NO_KEY,
            max_retries=self.max_retries,
            timeout=self.timeout_seconds,
        )

    async def _answer(
        self,
        client: Any,
        places: asyncio.Semaphore,
        index: int,
        chat: Messages,
        deadline: float | None,
        attempt: int,
    ) -> _Found:
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()), places:
                return _Found(index, self._read(await self._call(client, chat, attempt)))
        except TimeoutError:
            return _Found(index, Answer(error=TOO_LATE))
        except Exception as error:
            cause = self._explain(error)
            return _Found(index, Answer(error=cause), cause if _is_fatal(error) else None)

    async def _call(self, client: Any, chat: Messages, attempt: int) -> Any:
        seed = {} if self.seed is None else {"seed": self.seed + attempt}
        return await client.chat.completions.create(
            model=self.model_name,
            messages=[dict(message) for message in chat],
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            **seed,
        )

    def _read(self, completion: Any) -> Answer:
        choices = getattr(completion, "choices", None)
        if not choices:
            return Answer(error="the endpoint's reply holds no choice")
        reason, text = choices[0].finish_reason, getattr(choices[0].message, "content", None)
        if reason == "length":
            return Answer(error=f"cut off after {self.max_new_tokens} tokens (language_model.max_new_tokens)")
        if reason == "content_filter":
            return Answer(error="the endpoint's content filter withheld the answer")
        if not isinstance(text, str) or not text.strip():
            return Answer(error="the endpoint's reply is empty")
        return Answer(text=text)

    def _explain(self, error: Exception) -> str:
        """Return the cause of an error and its remedy."""
        import openai

        where = f"endpoint {self.base_url}"
        if isinstance(error, openai.APITimeoutError):
            return f"{where} gave no answer within {self.timeout_seconds:g} s (language_model.timeout_seconds)"
        if _is_broken_off(error):
            return f"{where} broke the connection off before the answer was whole ({error.__cause__})"
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return f"{where} cannot be reached ({cause}); is the server up, and language_model.base_url right?"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            state = "set" if os.environ.get(self.api_key_env) else "not set"
            return f"{where} refuses the key (status {error.status_code}); {self.api_key_env} is {state}"
        if isinstance(error, openai.NotFoundError):
            return (
                f"{where} does not know this URL or the model {self.model_name!r} (status 404); a base URL usually "
                "ends in /v1"
            )
        if isinstance(error, openai.APIStatusError):
            return f"{where} answered with status {error.status_code}: {error.message:.200}"
        return f"{where} sent no chat completion ({type(error).__name__}: {error!s:.200})"


def _run(loop: asyncio.AbstractEventLoop, calls: Coroutine[Any, Any, None], put: Callable[[Any], None]) -> None:
    """Run the calls on a loop of their own; ``put`` receives None at the end, or the error that ended them."""
    try:
        loop.run_until_complete(calls)
        put(None)
    except BaseException as error:
        put(error)
    finally:
        loop.close()


def _until_refused(found: SimpleQueue[_Found | BaseException | None]) -> Iterator[tuple[int, Answer]]:
    """Yield answers as they come; a refusal ends all calls unless the endpoint has answered before."""
    is_reached = False
    while (item := found.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        if item.refusal is not None and not is_reached:
            raise ModelUnavailableError(item.refusal)
        is_reached = is_reached or item.refusal is None
        yield item.place, item.answer


def _is_fatal(error: Exception) -> bool:
    """Whether the next call would fail in the same way."""
    import openai

    if isinstance(error, openai.APITimeoutError) or _is_broken_off(error):
        return False
    kinds = (
        openai.APIConnectionError,
        openai.AuthenticationError,
        openai.PermissionDeniedError,
        openai.NotFoundError,
    )
    return isinstance(error, kinds)


def _is_broken_off(error: Exception) -> bool:
    """Whether the server was reached and the connection then broke, which says nothing about the next call."""
    # by name: releases of openai differ in the HTTP package below them
    return type(error.__cause__).__name__ in ("RemoteProtocolError", "ReadError", "WriteError")
