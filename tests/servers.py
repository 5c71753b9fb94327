"""An OpenAI-compatible chat server on loopback that answers by a script."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = "<think>The second is off the subject.</think><answer>[2]</answer>"


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    headers: dict[str, str]
    body: dict[str, Any]
    path: str
    port: int = 0  # the client's

    @property
    def question(self) -> str:
        """The text of the last turn."""
        return str(self.body["messages"][-1]["content"])

    @property
    def shown(self) -> dict[str, str]:
        """The texts that the last turn shows behind an identifier at the beginning of a line."""
        return dict(re.findall(r"^(\[\d+\]) (.*)$", self.question, re.MULTILINE))


@dataclass(frozen=True)
class Reply:
    """What the server sends; `promised` bytes are announced, so a larger number breaks the reply off.

    Between the bytes of one with a `drip` so many seconds pass.
    """

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    promised: int | None = None
    drip: float = 0.0


DROP = Reply("", promised=-1)
"""The connection is closed without a word."""

Behaviour = Reply | Callable[[Request], Reply]
Serve = Callable[..., "ScriptedServer"]
"""The fixture `serve`: behaviours to a server that plays them."""


def completion(content: str | None = GOOD, *, finish: str = "stop", usage: Any = (40, 12), **message: Any) -> Reply:
    """A chat completion; `usage` is the tokens of prompt and answer, or `None` for a server that does not count."""
    body: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    message = {"role": "assistant", "content": content, **message}
    body["choices"] = [{"index": 0, "finish_reason": finish, "message": message}]
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Reply(json.dumps(body))


def refusal(status: int, message: str, **fields: Any) -> Reply:
    """An error as OpenAI's servers send it."""
    headers = fields.pop("headers", {})
    return Reply(json.dumps({"error": {"message": message, **fields}}), status=status, headers=headers)


def obeying(pick: Callable[[Sequence[str]], str], thought: str = "a", **reply: Any) -> Behaviour:
    """A server that holds its model to the schema of a request, as vLLM does; the model picks among identifiers."""

    def answer(request: Request) -> Reply:
        fields = request.body["response_format"]["json_schema"]["schema"]["properties"]
        wanted = fields["answer"]
        left = list(wanted.get("enum") or wanted["items"]["enum"])
        picked = [pick(left)]
        while len(picked) < wanted.get("minItems", 1):
            left.remove(picked[-1])
            picked.append(pick(left))
        said = {"thought": thought} if "thought" in fields else {}
        return completion(json.dumps({**said, "answer": picked if "items" in wanted else picked[0]}), **reply)

    return answer


def with_tokens(reply: Reply, tokens: Sequence[tuple[str, dict[str, float]]]) -> Reply:
    """The reply with its tokens, each beside the probabilities at its place."""

    def scored(text: str, chance: float) -> dict[str, Any]:
        return {"token": text, "logprob": math.log(chance), "bytes": list(text.encode())}

    body = json.loads(reply.body)
    body["choices"][0]["logprobs"] = {
        "content": [
            {**scored(text, chances.get(text, 1.0)), "top_logprobs": [scored(*each) for each in chances.items()]}
            for text, chances in tokens
        ]
    }
    return replace(reply, body=json.dumps(body))


class ScriptedServer(ThreadingHTTPServer):
    """Plays one behaviour per request, in their order; the last one is repeated."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behaviours: Sequence[Behaviour], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behaviours = list(behaviours)
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.active = self.most_active = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_behaviour(self, request: Request) -> Behaviour:
        with self.lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]

    def count_active(self, change: int) -> None:
        with self.lock:
            self.active += change
            self.most_active = max(self.most_active, self.active)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(
            {name.lower(): value for name, value in self.headers.items()}, body, self.path, self.client_address[1]
        )
        self.server.count_active(1)
        try:
            behaviour = self.server.next_behaviour(request)
            reply = behaviour(request) if callable(behaviour) else behaviour
            time.sleep(reply.delay)
        finally:
            self.server.count_active(-1)
        if reply.promised == -1:
            self.close_connection = True
            return
        payload = reply.body.encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload) if reply.promised is None else reply.promised))
        self.end_headers()
        for piece in [payload] if not reply.drip else [payload[place : place + 1] for place in range(len(payload))]:
            self.wfile.write(piece)
            time.sleep(reply.drip)
        self.close_connection = reply.promised is not None

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays readable."""


@contextmanager
def serving(*behaviours: Behaviour, port: int = 0) -> Iterator[ScriptedServer]:
    """A server that runs meanwhile; the fixture `serve` starts several."""
    server = ScriptedServer(behaviours, port)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
