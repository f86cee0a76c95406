"""Questions of all processes to one language model: the first process asks, each process parses its own replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sgsd_lightning.distributed.processes import broadcast_from_first, gather_from_processes, process_index
from sgsd_lightning.language_models.ask import AnswerRound, Parse, Reply, answer_all, ask_in_rounds, check_settings
from sgsd_lightning.language_models.base import Answer, LanguageModel, ModelUnavailableError
from sgsd_lightning.language_models.tally import CallTally
from sgsd_lightning.types import Messages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failed:
    """An error of one process, in the form in which the others receive it."""

    message: str
    is_unavailable: bool

    @classmethod
    def from_error(cls, error: Exception) -> _Failed:
        if isinstance(error, ModelUnavailableError):
            return cls(str(error), is_unavailable=True)
        return cls(f"{type(error).__name__}: {error}", is_unavailable=False)

    def error(self, rank: int) -> Exception:
        if self.is_unavailable:
            return ModelUnavailableError(self.message)
        return RuntimeError(f"process {rank} failed while a language model was asked: {self.message}")


def ask_together(
    model: LanguageModel,
    chats: Sequence[Messages],
    *,
    deadline_seconds: float,
    retries_with_other_seed: int = 1,
    parse: Parse[T] | None = None,
    tally: CallTally | None = None,
) -> list[Reply[T] | None]:
    """Do what `ask` does for the chats of all processes, each of which calls this and receives its own replies.

    The chats are gathered in the order of the ranks, and the first process answers them within the model's `session`,
    so that a policy which is sharded or lies on one device can be asked. Each process parses the replies to its own
    chats. ``tally`` counts the questions of all processes, in the same way on each. On one process this is `ask`.

    A process without chats calls this too. The arguments besides ``chats`` and ``parse`` are the same everywhere.

    Raises:
        ModelUnavailableError: as `ask` does, on every process.
        TooManyFailuresError: as `ask` does, on every process.
        RuntimeError: if another process failed, such as in its ``parse``.
    """
    tally = tally or CallTally()
    check_settings(deadline_seconds, retries_with_other_seed)
    answer_here = partial(answer_all, model, deadline_seconds, tally.has_answers)
    with model.session():
        rounds = ask_in_rounds(partial(_answer_on_first, answer_here), chats, retries_with_other_seed, parse)
    failure = None if rounds.fault is None else _Failed.from_error(rounds.fault)
    everyone = gather_from_processes((rounds.records, failure))
    if rounds.fault is not None:
        raise rounds.fault
    for rank, (_, failed) in enumerate(everyone):
        if failed is not None:
            raise failed.error(rank)
    tally.add([record for records, _ in everyone for record in records])
    return rounds.replies


def _answer_on_first(answer: AnswerRound, chats: Sequence[Messages], attempt: int) -> list[Answer]:
    """Answer the chats of all processes on the first one; an error there is raised on all."""
    gathered = gather_from_processes([[dict(message) for message in chat] for chat in chats])
    result: list[Answer] | _Failed | None = None
    fault: Exception | None = None
    if process_index() == 0:
        try:
            result = answer([chat for part in gathered for chat in part], attempt)
        except Exception as error:
            fault, result = error, _Failed.from_error(error)
    result = broadcast_from_first(result)
    if fault is not None:
        raise fault
    if isinstance(result, _Failed):
        raise result.error(0)
    assert result is not None
    start = sum(len(part) for part in gathered[: process_index()])
    return result[start : start + len(chats)]
