"""A real HTTP server on loopback that speaks chat completions, and misbehaves when the prompt tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Record:
    """What the server saw."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.keys: list[str | None] = []
        self.bodies: list[dict[str, Any]] = []
        self.num_now = 0
        self.num_at_most = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """The first word of the prompt says what happens."""

    record: Record
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        record = self.record
        with record.lock:
            record.prompts.append(prompt)
            record.keys.append(self.headers.get("Authorization"))
            record.bodies.append(body)
            record.num_now += 1
            record.num_at_most = max(record.num_at_most, record.num_now)
            num_tries = record.prompts.count(prompt)
        try:
            if self.path != "/v1/chat/completions":
                self._reply(404, {"error": {"message": "no such path"}})
            else:
                self._behave(prompt, num_tries)
        finally:
            with record.lock:
                record.num_now -= 1

    def _behave(self, prompt: str, num_tries: int) -> None:
        how = prompt.split()[0]
        if how == "busy" and num_tries < 3:
            self._reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
        elif how in ("400", "401", "403", "404", "429", "500"):
            self._reply(int(how), {"error": {"message": f"status {how}"}}, {"Retry-After": "0.02"})
        elif how == "hang":
            self.record.closing.wait(20)
        elif how == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif how == "half":
            self._send(200, b'{"id": "x", "choices": [{"mess', {})
        elif how == "page":
            self._send(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
        elif how == "nothing":
            self._reply(200, {"id": "x", "object": "chat.completion", "choices": []})
        elif how in ("length", "content_filter"):
            self._complete(f"half of {prompt}", how)
        elif how == "fickle" and num_tries == 1:
            self._complete("I would rather not say", "stop")
        elif how == "babble":
            self._complete("words, words", "stop")
        elif how == "empty":
            self._complete("", "stop")
        else:
            if how == "slow":
                time.sleep(0.4)
            self._complete(f"answer to {prompt}", "stop")

    def _complete(self, text: str, finish_reason: str) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        self._reply(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})

    def _reply(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), headers or {})

    def _send(self, status: int, payload: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: pytest's output is for tests."""


@contextmanager
def serving() -> Iterator[tuple[str, Record]]:
    """The base URL of a server that runs within this, and what it sees."""
    record = Record()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"record": record}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", record
    finally:
        record.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
