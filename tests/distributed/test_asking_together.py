"""Questions of 2 processes to one model: the replies and counts of one process, and nobody waits after an error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

from sgsd_lightning.language_models import (
    Answer,
    CachedModel,
    CallTally,
    EndpointModel,
    FailureLimit,
    LanguageModel,
    TrainedPolicy,
    ask_together,
)
from sgsd_lightning.types import Messages, SamplingSettings
from tests.support.misbehaving_server import serving
from tests.support.runs import on_processes
from tests.support.tiny import tiny_policy

QUESTIONS = [f"rate {n}" for n in range(5)] + ["babble 5", "fickle 6", "500 7", "rate 8"]


class Faulty(LanguageModel):
    """Fails in an unforeseen way."""

    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        raise KeyError("no such thing")


def chats(texts: Sequence[str]) -> list[Messages]:
    return [[{"role": "user", "content": text}] for text in texts]


def last_number(text: str, index: int) -> int:
    return int(text.split()[-1])


def broken_on_the_second(text: str, index: int) -> int:
    if int(os.environ.get("LOCAL_RANK", 0)) == 1:
        raise KeyError("a fault of ours")
    return 0


def judged(url: str, path: Path, own: slice) -> dict[str, Any]:
    """What a process is told of its own questions, and what it counts."""
    model = CachedModel(EndpointModel(url, "m", max_retries=0), str(path))
    tally = CallTally("judge", FailureLimit(max_failed_frac=1.0))
    replies = ask_together(model, chats(QUESTIONS[own]), deadline_seconds=20.0, parse=last_number, tally=tally)
    return {"replies": [reply and (reply.value, reply.text) for reply in replies], "counts": tally.counts()}


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def written(shard: bool) -> dict[str, Any]:
    """What the policy says, sharded or whole, with a cache."""
    source = tiny_policy()
    model = source.load_model()
    if shard:
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    policy = TrainedPolicy(sampling=SamplingSettings(max_new_tokens=200, sampling_temperature=1.0))
    policy.attach(model, source.load_tokenizer())
    with policy.session():
        identity = policy.identity()
    replies = ask_together(
        policy,
        chats(["a", "b", "c", "d"]),
        deadline_seconds=60.0,
        tally=CallTally("j", FailureLimit(max_failed_frac=1)),
    )
    return {"identity": identity, "replies": [reply and reply.text for reply in replies]}


def task(world_size: int, url: str, folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    own = slice(0, 6) if rank == 0 else slice(6, 9)
    limited = CallTally("judge", FailureLimit(max_failed_frac=0.1, window=8, min_questions=2))
    settings: dict[str, Any] = {"deadline_seconds": 20.0, "parse": last_number}
    model = EndpointModel(url, "m", max_retries=0)
    one = chats(["rate 1"])
    results = {
        "judged": judged(url, folder / "answers.jsonl", own),
        "again": judged(url, folder / "answers.jsonl", own),
        "none here": ask_together(model, one if rank else [], **settings),
        "unavailable": error_of(lambda: ask_together(model, chats(["401 x"] if rank else []), **settings)),
        "fault": error_of(lambda: ask_together(Faulty(), one, **settings)),
        "parse": error_of(lambda: ask_together(model, one, deadline_seconds=20.0, parse=broken_on_the_second)),
        "too many": error_of(
            lambda: ask_together(model, chats(["babble" if rank else "rate 1"]), tally=limited, **settings)
        ),
        "policy": written(shard=True),
    }
    torch.save(results, folder / f"results-{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("together")
    with serving() as (url, _):
        on_processes(2, task, url, folder)
    return [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes_are_told_what_one_is(results: list[dict[str, Any]], tmp_path: Path) -> None:
    with serving() as (url, record):
        alone = judged(url, tmp_path / "answers.jsonl", slice(None))
        asked = len(record.prompts)
    assert results[0]["judged"]["replies"] + results[1]["judged"]["replies"] == alone["replies"]
    assert alone["replies"].count(None) == 2
    assert results[0]["judged"]["counts"] == results[1]["judged"]["counts"] == alone["counts"]
    assert alone["counts"]["calls"] == asked


def test_a_second_time_the_cache_answers_on_both(results: list[dict[str, Any]]) -> None:
    for rank in range(2):
        assert results[rank]["again"]["replies"] == results[rank]["judged"]["replies"]
        # what failed is asked again
        assert results[rank]["again"]["counts"]["calls"] == 2
    assert results[0]["none here"] == []
    assert [reply.value for reply in results[1]["none here"]] == [1]


def test_an_error_on_one_process_is_raised_on_both(results: list[dict[str, Any]]) -> None:
    first, second = results
    assert first["unavailable"] == second["unavailable"]
    assert "ModelUnavailableError" in first["unavailable"]
    assert "refuses the key" in first["unavailable"]
    assert first["fault"] == "KeyError: 'no such thing'"
    assert second["fault"].startswith("RuntimeError: process 0 failed while a language model was asked: KeyError")
    assert first["parse"].startswith("RuntimeError: process 1 failed while a language model was asked: KeyError")
    assert second["parse"] == "KeyError: 'a fault of ours'"
    assert first["too many"] == second["too many"]
    assert "1 of the last 2 questions to judge failed (50%: 1 unparsable)" in first["too many"]


def test_a_sharded_policy_says_what_the_whole_one_says(results: list[dict[str, Any]]) -> None:
    alone = written(shard=False)
    assert any(alone["replies"])
    for rank in range(2):
        assert results[rank]["policy"]["identity"] == alone["identity"]
        assert results[rank]["policy"]["replies"] == alone["replies"]
