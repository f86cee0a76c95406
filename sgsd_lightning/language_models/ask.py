"""Questions to a language model whose replies a program reads: a deadline, another seed, None for a failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from sgsd_lightning.language_models.base import Answer, LanguageModel, ModelUnavailableError
from sgsd_lightning.language_models.tally import CallTally, Outcome, QuestionRecord
from sgsd_lightning.types import Messages
from sgsd_lightning.types.arguments import require

T = TypeVar("T")

Parse = Callable[[str, int], T]
"""From a reply and the index of its chat to what the reply says; raises a ValueError with the reason if it cannot be
read. A ``parse`` that looks at the whole reply must take its form from the end: reasons come first."""
AnswerRound = Callable[[Sequence[Messages], int], list[Answer]]
"""From chats and the number of the attempt to one answer per chat, in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply(Generic[T]):
    """What a language model replied to one chat."""

    text: str
    """The reply as it was received."""
    value: T
    """What ``parse`` read in it; the text where nothing parses it."""
    attempt: int = 0
    """The number of replies before it that could not be used."""
    is_cached: bool = False


def ask(
    model: LanguageModel,
    chats: Sequence[Messages],
    *,
    deadline_seconds: float,
    retries_with_other_seed: int = 1,
    parse: Parse[T] | None = None,
    tally: CallTally | None = None,
) -> list[Reply[T] | None]:
    """Ask in this process alone, and return one reply per chat; None where there is none that can be used.

    A chat whose call failed or whose reply cannot be parsed is asked again with another seed; one that is late is not.
    What fails is counted by kind; nothing takes its place.

    Args:
        model: Who is asked.
        chats: What is asked.
        deadline_seconds: For the first round over the batch; the retries get the same again, so that a call that hangs
            does not use up the time of those that could be repeated.
        retries_with_other_seed: How often a chat is asked again.
        parse: Reads a reply; None takes any text.
        tally: Where questions are counted, kept from batch to batch; None counts this batch alone.

    Raises:
        ModelUnavailableError: when the model answers nothing at all, and never has in this tally.
        TooManyFailuresError: when more of the latest questions failed than the tally's limit allows.
        ValueError: for a setting out of range.
        Exception: from ``parse``, if it is not a ValueError.
    """
    tally = tally or CallTally()
    check_settings(deadline_seconds, retries_with_other_seed)
    answer = partial(answer_all, model, deadline_seconds, tally.has_answers)
    rounds = ask_in_rounds(answer, chats, retries_with_other_seed, parse)
    if rounds.fault is not None:
        raise rounds.fault
    tally.add(rounds.records)
    return rounds.replies


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds(Generic[T]):
    """What all attempts on some chats came to."""

    replies: list[Reply[T] | None]
    records: list[QuestionRecord]
    fault: Exception | None
    """What ``parse`` raised that is not about a reply."""


def ask_in_rounds(
    answer: AnswerRound, chats: Sequence[Messages], num_retries: int, parse: Parse[T] | None
) -> Rounds[T]:
    """Ask all chats, then again those without a usable reply; always ``1 + num_retries`` rounds, for collectives.

    Raises:
        Exception: whatever ``answer`` raises.
    """
    questions: list[_Question[T]] = [_Question(index) for index in range(len(chats))]
    fault: Exception | None = None
    for attempt in range(1 + num_retries):
        pending = [question for question in questions if question.is_pending]
        answers = answer([chats[question.index] for question in pending], attempt)
        for question, found in zip(pending, answers, strict=True):
            try:
                question.read(found, attempt, parse)
            except Exception as error:  # raised when no other process waits for this one any more
                fault = fault or error
                question.is_pending = False
    return Rounds(
        replies=[question.reply for question in questions],
        records=[question.record() for question in questions],
        fault=fault,
    )


def answer_all(
    model: LanguageModel, seconds: float, may_be_unavailable: bool, chats: Sequence[Messages], attempt: int
) -> list[Answer]:
    """Return one answer per chat, in their order, within ``seconds``.

    Raises:
        ModelUnavailableError: when nothing can be answered. With ``may_be_unavailable`` it becomes each chat's error.
    """
    found: dict[int, Answer] = {}
    error = "no answer came"
    try:
        if chats:
            found.update(model.answers(chats, time.monotonic() + seconds, attempt=attempt))
    except ModelUnavailableError as unavailable:
        if not may_be_unavailable:
            raise
        error = str(unavailable)
    return [found.get(index, Answer(error=error)) for index in range(len(chats))]


def check_settings(seconds: float, num_retries: int) -> None:
    """Raise a ValueError that names the setting which is out of range."""
    require(seconds > 0, "deadline_seconds", "be above 0", seconds)
    require(num_retries >= 0, "retries_with_other_seed", "be 0 or more", num_retries)


class _Question(Generic[T]):
    """The state of one chat: its answers so far, and the reply once there is one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.reply: Reply[T] | None = None
        self.is_pending = True
        self._outcome = Outcome.NO_REPLY
        self._reason = ""
        self._num_calls = self._num_cache_hits = self._num_asked = 0

    def read(self, answer: Answer, attempt: int, parse: Parse[T] | None) -> None:
        self._num_asked += 1
        self._num_cache_hits += answer.is_cached
        self._num_calls += not answer.is_cached
        if answer.text is None:
            self._outcome = Outcome.LATE if answer.is_late else Outcome.NO_REPLY
            self._reason = str(answer.error)
            self.is_pending = not answer.is_late
            return
        try:
            value: Any = answer.text if parse is None else parse(answer.text, self.index)
        except ValueError as error:
            self._outcome, self._reason = Outcome.UNPARSABLE, f"{error} (in {answer.text[-80:]!r})"
            return
        self.reply = Reply(text=answer.text, value=value, attempt=attempt, is_cached=answer.is_cached)
        self._outcome, self._reason, self.is_pending = Outcome.ANSWERED, "", False

    def record(self) -> QuestionRecord:
        return QuestionRecord(
            outcome=self._outcome,
            num_calls=self._num_calls,
            num_cache_hits=self._num_cache_hits,
            num_retries=max(0, self._num_asked - 1),
            reason=self._reason,
        )
