"""The answer cache: what was paid for once is served again, after a kill and for several processes too."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.language_models import (
    Answer,
    AnswerCache,
    CachedModel,
    EndpointModel,
    LanguageModel,
    LocalModel,
    TrainedPolicy,
)
from sgsd_lightning.types import Messages, SamplingSettings
from tests.support.forked import forkserver
from tests.support.misbehaving_server import serving
from tests.support.tiny import tiny_policy

SHORT = SamplingSettings(max_new_tokens=200, sampling_temperature=1.0)


class Counting(LanguageModel):
    """Answers with the number of its calls; refuses what begins with ``no``."""

    def __init__(self, **identity: Any) -> None:
        self.said = identity
        self.asked: list[str] = []

    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        for index in reversed(range(len(chats))):
            text = chats[index][-1]["content"]
            self.asked.append(text)
            yield index, Answer(error="refused") if text.startswith("no") else Answer(text=f"call {len(self.asked)}")

    def identity(self) -> dict[str, Any]:
        return self.said


def chats(*texts: str) -> list[Messages]:
    return [[{"role": "user", "content": text}] for text in texts]


def replies(model: LanguageModel, asked: Sequence[Messages], attempt: int = 0) -> list[str | None]:
    found = dict(model.answers(asked, attempt=attempt))
    return [found[index].text for index in range(len(asked))]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "judge" / "answers.jsonl")


def test_hits_are_served_in_any_order_without_a_call(path: str) -> None:
    first = Counting(name="m")
    said = replies(CachedModel(first, path), chats("a", "b", "c"))
    again = CachedModel(Counting(name="m"), path)
    assert replies(again, chats("c", "d", "a")) == [said[2], "call 1", said[0]]
    assert again.counts() == {"cache_hits": 2, "cache_misses": 1}
    assert all(answer.is_cached for _, answer in again.answers(chats("a", "b")))


def test_equal_chats_of_a_batch_are_asked_once(path: str) -> None:
    model = Counting()
    assert replies(CachedModel(model, path), chats("a", "b", "a")) == ["call 2", "call 1", "call 2"]
    assert sorted(model.asked) == ["a", "b"]


def test_a_failed_answer_is_not_kept(path: str) -> None:
    model = Counting()
    cached = CachedModel(model, path)
    assert replies(cached, chats("no", "a")) == [None, "call 1"]
    assert replies(cached, chats("no", "a")) == [None, "call 1"]
    assert model.asked == ["a", "no", "no"]


@pytest.mark.parametrize("change", ["model", "chat", "role", "attempt", "prompts"])
def test_whatever_an_answer_depends_on_is_part_of_its_key(change: str, path: str) -> None:
    replies(CachedModel(Counting(name="m", seed=0), path), chats("a"))
    model = Counting(name="m", seed=1 if change == "model" else 0)
    asked: list[Messages] = chats("b" if change == "chat" else "a")
    if change == "role":
        asked = [[{"role": "system", "content": "a"}]]
    cached = CachedModel(model, path)
    if change == "prompts":
        cached = cached.for_prompts("another prompt file")
    replies(cached, asked, attempt=int(change == "attempt"))
    assert len(model.asked) == 1


def test_a_line_shows_a_person_what_was_asked_and_replied(path: str) -> None:
    replies(CachedModel(Counting(name="m"), path).for_prompts("v1"), chats("Wie groß? \ud800 \u2028"))
    (line,) = Path(path).read_bytes().splitlines()
    record = json.loads(line)
    assert "Wie groß?".encode() in line
    assert record["reply"] == "call 1"
    assert record["chat"] == chats("Wie groß? \ud800 \u2028")[0]
    assert (record["model"], record["attempt"], record["prompts"]) == ({"name": "m"}, 0, "v1")


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_a_line_that_was_half_written_costs_that_answer_alone(cut: int, path: str) -> None:
    said = replies(CachedModel(Counting(), path), chats("a", "b"))
    lines = Path(path).read_bytes().splitlines(keepends=True)
    Path(path).write_bytes(lines[0] + lines[1][:cut])  # "b" is answered first
    model = Counting()
    assert replies(CachedModel(model, path), chats("a", "b")) == ["call 1", said[1]]
    assert model.asked == ["a"]
    third = Counting()
    assert replies(CachedModel(third, path), chats("a", "b")) == ["call 1", said[1]]
    assert not third.asked
    assert len(Path(path).read_bytes().splitlines()) == 2


def test_a_line_that_is_not_ours_is_skipped_and_said(path: str, caplog: pytest.LogCaptureFixture) -> None:
    replies(CachedModel(Counting(), path), chats("a"))
    with Path(path).open("a") as file:
        file.write('{"key": 1}\nnonsense\n')
    with caplog.at_level(logging.WARNING):
        assert replies(CachedModel(Counting(), path), chats("a")) == ["call 1"]
        assert replies(CachedModel(Counting(), path), chats("b")) == ["call 1"]
    assert "2 lines are no cached answers" in caplog.text


def test_a_full_disk_ends_nothing_and_is_said(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: AnswerCache, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AnswerCache, "_append", full)
    assert replies(CachedModel(Counting(), path), chats("a", "b")) == ["call 2", "call 1"]
    assert caplog.text.count("no longer kept") == 1


def _ask_until_killed(url: str, path: str) -> None:
    cached = CachedModel(EndpointModel(url, "m", max_concurrent=1), path)
    for _, answer in cached.answers(chats("one", "two", "hang now", "three")):
        assert answer.text is not None
        if answer.text == "answer to two":
            os.kill(os.getpid(), signal.SIGKILL)


def test_after_a_kill_no_call_is_repeated(path: str) -> None:
    with serving() as (url, record):
        process = forkserver().Process(target=_ask_until_killed, args=(url, path))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        cached = CachedModel(EndpointModel(url, "m"), path)
        assert replies(cached, chats("three", "two", "one")) == ["answer to three", "answer to two", "answer to one"]
    assert [record.prompts.count(prompt) for prompt in ("one", "two", "three")] == [1, 1, 1]
    assert cached.counts() == {"cache_hits": 2, "cache_misses": 1}


def _add_many(path: str, name: str) -> None:
    cache = AnswerCache(path)
    for number in range(100):
        cache.add(f"{name} {number}", f"{name} says {number} " + "x" * 20_000, {})


def test_several_processes_share_a_file(path: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(path, name)) for name in "ab"]
    for process in processes:
        process.start()
    cache = AnswerCache(path)
    cache.find("a 0")  # while they write
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for name in "ab":
        assert [str(cache.find(f"{name} {n}"))[:11].strip("x ") for n in range(100)] == [
            f"{name} says {n}" for n in range(100)
        ]


def test_a_local_models_answers_are_those_of_its_weights(path: str) -> None:
    said = replies(CachedModel(LocalModel(tiny_policy(), sampling=SHORT), path), chats("a", "b", "c", "d"))
    assert any(said)
    same = CachedModel(LocalModel(tiny_policy(), sampling=SHORT, batch_size=1), path)
    assert replies(same, chats("a", "b", "c", "d")) == said
    assert same.counts()["cache_hits"] == sum(text is not None for text in said)
    for changed in (
        LocalModel(tiny_policy(), sampling=SHORT, seed=1),
        LocalModel(tiny_policy(seed=1), sampling=SHORT),
        LocalModel(tiny_policy(), sampling=SamplingSettings(max_new_tokens=200, sampling_temperature=0.5)),
        LocalModel(tiny_policy(), sampling=SHORT, template_args={"enable_thinking": False}),
    ):
        other = CachedModel(changed, path)
        replies(other, chats("a", "b", "c", "d"))
        assert other.counts()["cache_hits"] == 0


def test_old_weights_of_the_trained_policy_are_never_served(path: str) -> None:
    model, tokenizer = tiny_policy().load_model(), tiny_policy().load_tokenizer()
    cached = CachedModel(TrainedPolicy(sampling=SHORT), path)
    cached.attach(model, tokenizer)
    said = replies(cached, chats("a", "b", "c"))
    before = cached.identity()
    weight = next(iter(model.parameters()))
    with torch.no_grad():
        old = weight[-1, -1].item()
        weight[-1, -1] += 1e-3
    assert cached.identity() != before
    replies(cached, chats("a", "b", "c"))
    assert cached.counts()["cache_hits"] == 0
    with torch.no_grad():
        weight[-1, -1] = old
    assert cached.identity() == before
    assert replies(cached, chats("a", "b", "c")) == said
    assert cached.counts()["cache_hits"] == sum(text is not None for text in said)


def test_a_model_that_does_not_say_what_it_is_cannot_be_cached(path: str) -> None:
    class Nameless(Counting):
        identity = LanguageModel.identity  # type: ignore[assignment]

    with pytest.raises(NotImplementedError, match="Nameless has no identity"):
        replies(CachedModel(Nameless(), path), chats("a"))
