"""Language models behind an OpenAI-compatible endpoint: a service, vLLM, SGLang, `transformers serve` and the like."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sgsd_lightning.skills.writer import WriterUnavailableError
from sgsd_lightning.types import Messages
from sgsd_lightning.writers.language_model import Answer, LanguageModel

TOO_LATE = "not answered before the deadline"
NO_KEY = "no-key"
"""What is sent where there is no key: local servers want none, and the client insists on one."""


class EndpointModel(LanguageModel):
    """Chat completions over HTTP; needs the extra ``skills``.

    Many calls are under way at a time. Calls that are refused for a moment (429, 5xx, a broken connection) are made
    again, waiting longer each time, or as long as the server asks.

    Args:
        base_url: up to and including the version, such as ``http://localhost:8000/v1``.
        model_name: the model, as the endpoint calls it.
        api_key_env: the environment variable that holds the key; it need not be set for servers that want none.
        max_new_tokens: of an answer; one that is longer is an error of that chat.
        temperature: of the sampling.
        max_concurrent: calls under way at a time.
        max_retries: how often a call is made again.
        timeout_seconds: for one try of a call.
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
    ) -> None:
        rules = {
            "base_url": (base_url.startswith(("http://", "https://")), base_url, "begin with http:// or https://"),
            "max_new_tokens": (max_new_tokens >= 1, max_new_tokens, "be at least 1"),
            "temperature": (temperature >= 0, temperature, "be 0 or more"),
            "max_concurrent": (max_concurrent >= 1, max_concurrent, "be at least 1"),
            "max_retries": (max_retries >= 0, max_retries, "be 0 or more"),
            "timeout_seconds": (timeout_seconds > 0, timeout_seconds, "be above 0"),
        }
        for name, (is_valid, value, rule) in rules.items():
            if not is_valid:
                raise ValueError(f"language_model.{name} must {rule}; got {value}")
        self.base_url = base_url
        self.model_name = model_name
        self.api_key_env = api_key_env
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.max_concurrent = max_concurrent
        self.max_retries = max_retries
        self.timeout_seconds = timeout_seconds

    def answers(self, chats: Sequence[Messages], deadline: float | None = None) -> Iterator[tuple[int, Answer]]:
        client = self._client()
        loop = asyncio.new_event_loop()
        places = asyncio.Semaphore(self.max_concurrent)
        calls = {loop.create_task(self._answer(client, places, chat, deadline)): i for i, chat in enumerate(chats)}
        waiting = set(calls)
        is_reached = False
        try:
            while waiting:
                done, waiting = loop.run_until_complete(asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))
                for call in sorted(done, key=calls.__getitem__):
                    answer, refusal = call.result()
                    if refusal is not None and not is_reached:
                        raise WriterUnavailableError(refusal)
                    is_reached = is_reached or refusal is None
                    yield calls[call], answer
        finally:
            loop.run_until_complete(_closed(client, waiting))
            loop.close()

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
        self, client: Any, places: asyncio.Semaphore, chat: Messages, deadline: float | None
    ) -> tuple[Answer, str | None]:
        """An answer, and why no chat at all can be answered, as far as this call shows."""
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()), places:
                return self._read(await self._call(client, chat)), None
        except TimeoutError:
            return Answer(error=TOO_LATE), None
        except Exception as error:
            told = self._told(error)
            return Answer(error=told), told if _is_fatal(error) else None

    async def _call(self, client: Any, chat: Messages) -> Any:
        return await client.chat.completions.create(
            model=self.model_name,
            messages=[dict(message) for message in chat],
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
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

    def _told(self, error: Exception) -> str:
        """What went wrong, and what would help."""
        import openai

        where = f"endpoint {self.base_url}"
        if isinstance(error, openai.APITimeoutError):
            return f"{where} gave no answer within {self.timeout_seconds:g} s (language_model.timeout_seconds)"
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


async def _closed(client: Any, calls: set[asyncio.Task[Any]]) -> None:
    """Nothing is under way any more."""
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await client.close()


def _is_fatal(error: Exception) -> bool:
    """Whether the next call would fail in the same way."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return False
    kinds = (
        openai.APIConnectionError,
        openai.AuthenticationError,
        openai.PermissionDeniedError,
        openai.NotFoundError,
    )
    return isinstance(error, kinds)
