"""The endpoint client against a real server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sgsd_lightning.language_models import Answer, EndpointModel, ModelUnavailableError
from tests.support.misbehaving_server import Record, serving


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Record]]:
    with serving() as running:
        yield running


@pytest.fixture
def url(server: tuple[str, Record]) -> str:
    return server[0]


@pytest.fixture
def record(server: tuple[str, Record]) -> Record:
    """What the server sees from now on."""
    seen = server[1]
    seen.prompts.clear()
    seen.keys.clear()
    seen.bodies.clear()
    seen.num_at_most = 0
    return seen


def model(url: str, **settings: Any) -> EndpointModel:
    return EndpointModel(url, "m", **{"max_retries": 2, "timeout_seconds": 5.0, **settings})


def ask(endpoint: EndpointModel, prompts: Sequence[str], deadline: float | None = None) -> dict[int, Answer]:
    return dict(endpoint.answers([[{"role": "user", "content": prompt}] for prompt in prompts], deadline))


def test_every_chat_gets_its_own_answer(url: str, record: Record) -> None:
    found = ask(model(url, max_new_tokens=7, temperature=0.25), [f"question {n}" for n in range(20)])
    assert found == {n: Answer(text=f"answer to question {n}") for n in range(20)}
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in record.bodies} == {("m", 7, 0.25)}


def test_the_key_comes_from_the_environment(url: str, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    ask(model(url, api_key_env="MY_KEY"), ["one"])
    monkeypatch.delenv("MY_KEY")
    ask(model(url, api_key_env="MY_KEY"), ["one"])
    assert record.keys == ["Bearer secret", "Bearer no-key"]


def test_a_busy_server_is_asked_again_as_late_as_it_wishes(url: str, record: Record) -> None:
    assert ask(model(url), ["busy one"])[0].text == "answer to busy one"
    assert record.prompts.count("busy one") == 3


@pytest.mark.parametrize(
    ("how", "error", "num_tries"),
    [
        ("400", "status 400", 1),
        ("429", "status 429", 3),
        ("500", "status 500", 3),
        ("half", "no chat completion", None),
        ("page", "holds no choice", 1),
        ("nothing", "holds no choice", 1),
        ("empty", "reply is empty", 1),
        ("length", "cut off after 1024 tokens (language_model.max_new_tokens)", 1),
        ("content_filter", "content filter", 1),
    ],
)
def test_a_bad_answer_is_an_error_of_its_own_chat_alone(
    how: str, error: str, num_tries: int | None, url: str, record: Record
) -> None:
    found = ask(model(url), ["before", f"{how} now", "after"])
    assert error in str(found[1].error)
    assert [found[n].text for n in (0, 2)] == ["answer to before", "answer to after"]
    if num_tries is not None:
        assert record.prompts.count(f"{how} now") == num_tries


def test_a_connection_that_is_cut_is_tried_again_and_then_an_error(url: str, record: Record) -> None:
    found = ask(model(url, max_retries=1, max_concurrent=1), ["cut now", "after"])
    assert "broke the connection off" in str(found[0].error)
    assert found[1].text == "answer to after"
    assert record.prompts.count("cut now") == 2
    assert "broke the connection off" in str(ask(model(url, max_retries=0), ["cut alone"])[0].error)


def test_a_hanging_server_costs_one_chat_its_time(url: str) -> None:
    start = time.monotonic()
    found = ask(model(url, timeout_seconds=0.3, max_retries=0), ["hang now", "after"])
    assert "no answer within 0.3 s" in str(found[0].error)
    assert found[1].text == "answer to after"
    assert time.monotonic() - start < 3


def test_the_deadline_cuts_what_is_under_way_and_what_waits(url: str) -> None:
    start = time.monotonic()
    found = ask(model(url, max_concurrent=2), ["fast", "hang 1", "hang 2", "later"], deadline=start + 0.5)
    assert time.monotonic() - start < 2
    assert found[0].text == "answer to fast"
    assert [found[n].error for n in (1, 2, 3)] == ["not answered before the deadline"] * 3
    assert ask(model(url), ["fast"], deadline=start)[0].error == "not answered before the deadline"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("401", r"refuses the key \(status 401\); NOT_THERE is not set"),
        ("403", r"refuses the key \(status 403\)"),
        ("404", r"does not know this URL or the model 'm' \(status 404\)"),
    ],
)
def test_a_server_that_refuses_everything_is_told_at_once(how: str, message: str, url: str) -> None:
    with pytest.raises(ModelUnavailableError, match=message):
        ask(model(url, api_key_env="NOT_THERE"), [f"{how} now"])


def test_a_wrong_url_and_a_server_that_is_not_there_are_told(url: str) -> None:
    with pytest.raises(ModelUnavailableError, match=r"usually ends in /v1"):
        ask(model(url.removesuffix("/v1")), ["one"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "nowhere.invalid"):
        with pytest.raises(ModelUnavailableError, match=rf"{host}/v1 cannot be reached .* is the server up"):
            ask(model(f"http://{host}/v1", max_retries=0), ["one"])


def test_a_refusal_after_answers_ends_nothing(url: str) -> None:
    found = ask(model(url, max_concurrent=1), ["one", "401 now", "two"])
    assert "refuses the key" in str(found[1].error)
    assert found[2].text == "answer to two"


def test_no_more_calls_are_under_way_than_allowed() -> None:
    with serving() as (url, record):  # on the shared one, calls may hang that others gave up
        ask(model(url, max_concurrent=3), [f"slow {n}" for n in range(7)])
    assert record.num_at_most == 3


def test_answers_come_before_the_slowest_is_done(url: str) -> None:
    start = time.monotonic()
    running = model(url).answers([[{"role": "user", "content": text}] for text in ("hang now", "fast")])
    assert next(running) == (1, Answer(text="answer to fast"))
    assert time.monotonic() - start < 3
    running.close()


def test_closing_early_leaves_no_call_behind(url: str, record: Record) -> None:
    running = model(url, max_concurrent=1).answers(
        [[{"role": "user", "content": text}] for text in ("fast", "slow 1", "slow 2", "slow 3")]
    )
    next(running)
    running.close()
    time.sleep(0.6)
    assert len(record.prompts) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]


def test_calls_go_on_while_the_asker_is_busy_with_an_answer(url: str) -> None:
    chats = [[{"role": "user", "content": text}] for text in ("fast", "slow now")]
    running = model(url).answers(chats, deadline=time.monotonic() + 1.0)
    assert next(running) == (0, Answer(text="answer to fast"))
    time.sleep(1.5)
    assert next(running) == (1, Answer(text="answer to slow now"))


def test_it_works_within_another_event_loop(url: str) -> None:
    async def cell() -> dict[int, Answer]:
        return ask(model(url), ["one"])

    assert asyncio.run(cell()) == {0: Answer(text="answer to one")}


def test_it_works_in_another_thread(url: str) -> None:
    found: dict[int, Answer] = {}
    thread = threading.Thread(target=lambda: found.update(ask(model(url), ["one", "two"])))
    thread.start()
    thread.join(10)
    assert [found[n].text for n in (0, 1)] == ["answer to one", "answer to two"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", "localhost:8000"),
        ("max_new_tokens", 0),
        ("temperature", -1.0),
        ("max_concurrent", 0),
        ("max_retries", -1),
        ("timeout_seconds", 0.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"language_model.{name} must .*; got {value}"):
        EndpointModel(**{"base_url": "http://x/v1", "model_name": "m", name: value})
