"""Questions whose replies a program reads, against a server that misbehaves: None, counted, and the run stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sgsd_lightning.language_models import (
    CachedModel,
    CallTally,
    EndpointModel,
    FailureLimit,
    ModelUnavailableError,
    TooManyFailuresError,
    ask,
)
from sgsd_lightning.types import Messages
from tests.support.misbehaving_server import Record, serving


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Record]]:
    with serving() as running:
        yield running


@pytest.fixture
def record(server: tuple[str, Record]) -> Record:
    server[1].prompts.clear()
    server[1].bodies.clear()
    return server[1]


def model(server: tuple[str, Record], **settings: Any) -> EndpointModel:
    return EndpointModel(server[0], "m", **{"max_retries": 0, "timeout_seconds": 5.0, **settings})


def chats(*texts: str) -> list[Messages]:
    return [[{"role": "user", "content": text}] for text in texts]


def last_number(text: str, index: int) -> int:
    return int(text.split()[-1])


def lenient(**limit: Any) -> CallTally:
    return CallTally("judge", FailureLimit(**{"max_failed_frac": 1.0, **limit}))


def test_every_kind_of_failure_is_none_and_counted(server: tuple[str, Record], record: Record) -> None:
    tally = lenient()
    asked = chats("rate 1", "babble 2", "fickle 3", "500 4", "hang 5", "length 6")
    start = time.monotonic()
    found = ask(model(server), asked, deadline_seconds=1.0, parse=last_number, tally=tally)
    assert time.monotonic() - start < 4
    assert [reply and (reply.value, reply.text, reply.attempt) for reply in found] == [
        (1, "answer to rate 1", 0),
        None,
        (3, "answer to fickle 3", 1),
        None,
        None,
        None,
    ]
    assert tally.counts() == {
        "questions": 6,
        "calls": 10,
        "cache_hits": 0,
        "retries": 4,
        "failed_late": 1,
        "failed_parse": 1,
        "failed_call": 2,
    }


def test_a_retry_is_of_another_seed(server: tuple[str, Record], record: Record) -> None:
    ask(model(server, seed=7), chats("fickle 1"), deadline_seconds=5.0, parse=last_number)
    assert [body["seed"] for body in record.bodies] == [7, 8]
    record.bodies.clear()
    ask(model(server), chats("rate 1"), deadline_seconds=5.0, parse=last_number)
    assert "seed" not in record.bodies[0]


def test_without_retries_the_first_reply_decides(server: tuple[str, Record], record: Record) -> None:
    tally = lenient()
    found = ask(
        model(server),
        chats("fickle 8"),
        deadline_seconds=5.0,
        retries_with_other_seed=0,
        parse=last_number,
        tally=tally,
    )
    assert found == [None]
    assert (tally.counts()["calls"], tally.counts()["failed_parse"]) == (1, 1)


def test_parse_knows_whose_reply_it_reads(server: tuple[str, Record]) -> None:
    def read(text: str, index: int) -> str:
        return f"{index}: {text}"

    found = ask(model(server), chats("x", "y"), deadline_seconds=5.0, parse=read)
    assert [reply and reply.value for reply in found] == ["0: answer to x", "1: answer to y"]


def test_an_error_in_parse_is_ours_and_no_failure_of_the_model(server: tuple[str, Record]) -> None:
    def broken(text: str, index: int) -> int:
        raise KeyError("score")

    with pytest.raises(KeyError, match="score"):
        ask(model(server), chats("rate 1"), deadline_seconds=5.0, parse=broken)


def test_the_run_stops_when_the_share_of_failures_is_above_the_limit(server: tuple[str, Record]) -> None:
    tally = CallTally("judge", FailureLimit(max_failed_frac=0.25, window=8, min_questions=6))
    settings: dict[str, Any] = {"deadline_seconds": 5.0, "parse": last_number, "tally": tally}
    assert ask(model(server), chats("babble 1", "babble 2", "rate 3"), **settings)[:2] == [None, None]  # too early
    with pytest.raises(
        TooManyFailuresError,
        match=r"2 of the last 6 questions to judge failed \(33%: 2 unparsable\), which is more than "
        r"judge.max_failed_frac = 0.25 allows; the last one: .*",
    ):
        ask(model(server), chats("rate 4", "rate 5", "babble 6", "babble 7")[:3], **{**settings, "tally": _after(3)})


def _after(num: int) -> CallTally:
    """A tally that has seen one failure among ``num`` questions."""
    tally = CallTally("judge", FailureLimit(max_failed_frac=0.25, window=8, min_questions=6))
    tally.load_state_dict({"counts": {"answered": num - 1}, "latest": ["failed_parse"] + ["answered"] * (num - 1)})
    return tally


def test_old_failures_leave_the_window(server: tuple[str, Record]) -> None:
    tally = CallTally("judge", FailureLimit(max_failed_frac=0.5, window=4, min_questions=3))
    settings: dict[str, Any] = {"deadline_seconds": 5.0, "parse": last_number, "tally": tally}
    ask(model(server), chats("babble 1", "babble 2"), **settings)
    for start in range(0, 9, 3):
        ask(model(server), chats(*(f"rate {start + n}" for n in range(3)), f"babble {start}"), **settings)
    assert tally.counts()["failed_parse"] == 5


def test_a_tally_is_resumed(server: tuple[str, Record]) -> None:
    tally = lenient()
    ask(model(server), chats("babble 1", "rate 2"), deadline_seconds=5.0, parse=last_number, tally=tally)
    resumed = lenient()
    resumed.load_state_dict(tally.state_dict())
    assert resumed.counts() == tally.counts()
    assert resumed.state_dict() == tally.state_dict()


def test_a_model_that_never_answered_is_told_at_once_and_a_later_outage_is_counted(
    server: tuple[str, Record],
) -> None:
    tally = lenient()
    with pytest.raises(ModelUnavailableError, match="refuses the key"):
        ask(model(server), chats("401 now"), deadline_seconds=5.0, tally=tally)
    ask(model(server), chats("rate 1"), deadline_seconds=5.0, tally=tally)
    assert ask(model(server), chats("401 now", "401 later"), deadline_seconds=5.0, tally=tally) == [None, None]
    assert tally.counts()["failed_call"] == 2


def test_cached_replies_give_the_same_without_a_call(
    server: tuple[str, Record], record: Record, tmp_path: Path
) -> None:
    path = str(tmp_path / "answers.jsonl")
    asked = chats("rate 1", "fickle 21", "babble 3")
    before, after = lenient(), lenient()
    settings: dict[str, Any] = {"deadline_seconds": 5.0, "parse": last_number}
    first = ask(CachedModel(model(server), path), asked, tally=before, **settings)
    num_calls = len(record.prompts)
    second = ask(CachedModel(model(server), path), asked, tally=after, **settings)
    assert len(record.prompts) == num_calls
    assert [reply and (reply.value, reply.attempt) for reply in first] == [(1, 0), (21, 1), None]
    assert [reply and (reply.value, reply.attempt) for reply in second] == [(1, 0), (21, 1), None]
    assert [reply.is_cached for reply in second if reply] == [True, True]
    assert (before.counts()["calls"], before.counts()["cache_hits"]) == (5, 0)
    assert (after.counts()["calls"], after.counts()["cache_hits"]) == (0, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deadline_seconds": 0.0}, "deadline_seconds must be above 0; got 0.0"),
        ({"deadline_seconds": 1.0, "retries_with_other_seed": -1}, "retries_with_other_seed must be 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, server: tuple[str, Record]) -> None:
    with pytest.raises(ValueError, match=message):
        ask(model(server), chats("rate 1"), **settings)


@pytest.mark.parametrize(("name", "value"), [("max_failed_frac", 1.5), ("window", 0), ("min_questions", 0)])
def test_a_limit_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"failure_limit.{name} must .*; got {value}"):
        FailureLimit(**{name: value})
