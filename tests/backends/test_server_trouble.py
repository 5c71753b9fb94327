"""Servers that refuse fields, that are away, that ask for patience, drip, send too much, or redirect."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from servers import GOOD, Reply, Request, Serve, completion, refusal, serving
from test_openai_backend import KEY, backend, call, everything_said

from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.errors import BackendError, CallError, InputError

SYSTEM_TEXT = call().messages[0].content


def refusing(*refusals: tuple[str, Reply]) -> Callable[[Request], Reply]:
    """Refuses requests that have a field, or a system turn, by the first that fits."""

    def reply(request: Request) -> Reply:
        parts = {*request.body, *(turn["role"] for turn in request.body["messages"])}
        return next((refused for part, refused in refusals if part in parts), completion())

    return reply


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("seed", "Extra inputs are not permitted: seed"),
        ("temperature", "'temperature' does not support 0 with this model"),
        ("system", "System role not supported"),
        ("system", "Conversation roles must alternate user/assistant/user/assistant/..."),
        ("system", "Developer instruction is not enabled for models/gemma-3-27b-it"),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 200])
def test_a_refused_field_is_left_out_once_and_for_all(serve: Serve, part: str, words: str, status: int) -> None:
    refused = refusal(status, words, **({"code": 400} if status == 200 else {}))
    server = serve(refusing((part, refused)))
    subject = backend(server, concurrency=1, max_retries=0)
    assert [answer.text for answer in subject.answer([call("a"), call("b"), call("c")])] == [GOOD] * 3
    assert len(server.requests) == 4
    sent = server.requests[-1].body
    assert part not in {*sent, *(turn["role"] for turn in sent["messages"])}
    if part == "system":
        assert server.requests[-1].question == f"{SYSTEM_TEXT}\n\nc"
    if part == "max_tokens":
        assert sent["max_completion_tokens"] == 1024 + 160


def test_all_fields_may_be_refused_and_answers_that_can_not_repeat_are_not_kept(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    parts = ("response_format", "logprobs", "system", "temperature", "seed", "max_tokens", "max_completion_tokens")
    server = serve(refusing(*((part, refusal(400, f"unsupported: {part} message")) for part in parts)))
    subject = backend(server, concurrency=1)
    [first, second] = subject.answer([call(), call()])
    assert first.text == second.text == GOOD and first.provisional and second.provisional
    assert server.requests[-1].body.keys() == {"model", "messages"}
    assert len(server.requests) <= len(parts) + 3
    assert "seed" in caplog.text and "does not take it" in caplog.text
    # Greedy without a seed, or by a seed, is repeatable.
    [greedy] = backend(serve(refusing(("seed", refusal(400, "no seed"))))).answer([call()])
    [seeded] = backend(serve(refusing(("temperature", refusal(400, "no temperature"))))).answer([call()])
    [sampled] = backend(serve(refusing(("seed", refusal(422, "no seed")))), temperature=0.7).answer([call()])
    assert not greedy.provisional and not seeded.provisional and sampled.provisional


def test_a_limit_that_is_too_large_is_not_dropped(serve: Serve) -> None:
    server = serve(refusal(400, "max_tokens is too large: at most 512 are supported"))
    with pytest.raises(CallError, match="at most 512"):
        backend(server).answer([call()])
    assert all(request.body["max_tokens"] == 1184 for request in server.requests)


ECHO = {"response_format": {}, "logprobs": True, "temperature": 0, "messages": [{"role": "system", "content": "a"}]}


@pytest.mark.parametrize(
    "told",
    [
        {"detail": [{"type": "value_error", "loc": ["body", "seed"], "msg": "not permitted", "input": ECHO}]},
        {"message": str([{"type": "value_error", "loc": ("body", "seed"), "msg": "not permitted", "input": ECHO}])},
        {"error": {"message": "Extra inputs are not permitted", "param": "seed"}},
    ],
    ids=["list", "text", "param"],
)
def test_what_a_refusal_repeats_of_the_request_is_not_refused(serve: Serve, told: dict[str, Any]) -> None:
    server = serve(refusing(("seed", Reply(json.dumps(told), status=422))))
    backend(server, max_retries=0).answer([call()])
    first, second = (request.body.keys() for request in server.requests)
    assert first - second == {"seed"}


def test_a_refusal_is_remembered_whatever_was_under_way_before(serve: Serve) -> None:
    """The answer to a request that the server took as it was does not bring back what it refused of another."""
    slow = threading.Event()

    def reply(request: Request) -> Reply:
        if "logprobs" in request.body:
            return refusal(400, "logprobs are not supported")
        if request.question == "slow":
            slow.wait(10)
        return completion('{"answer": ["[1]", "[2]", "[3]"]}')

    server = serve(reply)
    subject, stop = backend(server, max_retries=0), threading.Event()
    under_way = subject.submit(call("slow", form="order"), (0, 0), stop)
    subject.answer([call()])
    slow.set()
    assert under_way.result().choice == ("[1]", "[2]", "[3]")
    asked = len(server.requests)
    subject.answer([call()])
    assert len(server.requests) == asked + 1


def test_without_files_to_open_there_is_an_error_and_no_hang(serve: Serve) -> None:
    resource = pytest.importorskip("resource")
    server = serve(completion())
    subject = backend(server)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(BackendError, match=r"no connection to a server can be opened: .*ulimit -n"):
            subject.submit(call(), (0, 0), threading.Event())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert subject.answer([call()])[0].text == GOOD


def test_fields_are_left_out_by_hand(serve: Serve) -> None:
    server = serve(completion())
    names = ["response_format", "logprobs", "system", "temperature", "seed", "max_tokens"]
    for given in (names, ", ".join(names)):
        subject = backend(server, leave_out=given)
        subject.answer([call()])
        sent = server.requests[-1].body
        assert sent.keys() == {"model", "messages", "max_completion_tokens"}
        assert [turn["role"] for turn in sent["messages"]] == ["user"]
        assert "not_cacheable" in subject.identity
    assert backend(server, leave_out="seed").identity == backend(server, seed=None).identity
    with pytest.raises(InputError, match=r"leave_out names 'sed': it takes response_format"):
        backend(server, leave_out="sed")


@pytest.mark.parametrize("body", [{"structured_outputs": {"choice": ["a"]}}, {"response_format": {"type": "text"}}])
def test_what_users_ask_for_in_extra_body_stays(serve: Serve, body: dict[str, Any]) -> None:
    server = serve(completion())
    backend(server, extra_body=body).answer([call()])
    assert {name: server.requests[0].body.get(name) for name in ("structured_outputs", "response_format")} == {
        **{"structured_outputs": None, "response_format": None},
        **body,
    }


# --- away, slow, too long -------------------------------------------------------------------------------------------


@contextmanager
def starting_later(port: int, seconds: float) -> Iterator[None]:
    """A server that comes up at a port only after a while."""
    done = threading.Event()

    def run() -> None:
        if not done.wait(seconds):
            with serving(completion(), port=port):
                done.wait()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_server_that_goes_away_is_waited_for() -> None:
    with serving(completion()) as server:
        subject = backend(server, max_retries=0, concurrency=2)
        subject.answer([call()])
    with starting_later(server.server_port, 1.0):
        assert [answer.text for answer in subject.answer([call(), call()])] == [GOOD] * 2


def test_a_server_that_is_not_there_yet_is_waited_for_if_asked_to() -> None:
    port = free_port()
    subject = OpenAIBackend("m", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0, wait=60)
    with starting_later(port, 1.0):
        assert subject.answer([call()])[0].text == GOOD


@pytest.mark.parametrize("wait", [0, 0.2])
def test_the_wait_is_bounded(wait: float) -> None:
    with serving(completion()) as server:
        subject = backend(server, max_retries=0, wait=wait)
        subject.answer([call()])
    for _ in range(2):
        with pytest.raises(BackendError, match="could not be reached"):
            subject.answer([call(), call(), call()])


def test_a_gateway_without_its_server_is_waited_for(serve: Serve) -> None:
    server = serve(completion(), refusal(502, "bad gateway"), refusal(503, "loading"), completion())
    subject = backend(server, max_retries=0)
    assert [subject.answer([call()])[0].text for _ in range(2)] == [GOOD] * 2


@pytest.mark.parametrize("asked", ["3600", "inf", "Fri, 31 Dec 2100 23:59:59 GMT"])
@pytest.mark.parametrize("status", [429, 503, 200])
def test_who_asks_to_wait_for_an_hour_is_asked_once(serve: Serve, asked: str, status: int) -> None:
    server = serve(refusal(status, "tokens per day", headers={"Retry-After": asked}, code=429))
    with pytest.raises(BackendError, match=r"asks to wait (\d+|inf) seconds .* at most 120") as caught:
        backend(server).answer([call()])
    assert not isinstance(caught.value, CallError) and "tried up to" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_reply_that_drips_in_is_given_up(serve: Serve) -> None:
    server = serve(Reply(completion().body, drip=0.05))
    with pytest.raises(CallError, match=r"did not finish a reply within 0.3 seconds .* raise request_timeout"):
        backend(server, timeout=30, request_timeout=0.3).answer([call()])
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_reply_beyond_the_limit_is_not_read(serve: Serve, status: int) -> None:
    long = completion("word " * 2000).body
    server = serve(Reply(long, status=status))
    with pytest.raises(CallError, match=r"a reply of more than 4.0 KiB .* raise max_reply_bytes"):
        backend(server, max_reply_bytes="4KiB").answer([call()])
    assert len(server.requests) == 1
    if status == 200:
        assert backend(serve(Reply(long)), max_reply_bytes=len(long)).answer([call()])


@pytest.mark.parametrize(
    "options", [{"request_timeout": 0}, {"wait": -1}, {"max_reply_bytes": 0}, {"max_reply_bytes": "16 apples"}]
)
def test_bad_limits(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        OpenAIBackend("m", base_url="http://127.0.0.1:1/v1", **options)


# --- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_passage_and_no_header_go_to_another_origin(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    elsewhere = serve(completion())
    port = elsewhere.server_port
    for target in (elsewhere.base_url, f"http://localhost:{port}/v1", f"http://{KEY}@127.0.0.1:{port}/v1?key={KEY}"):
        server = serve(Reply("", status=status, headers={"Location": f"{target}/chat/completions"}))
        with pytest.raises(BackendError, match=f"redirects to .*:{port}, another origin") as caught:
            backend(server).answer([call()])
        assert not isinstance(caught.value, CallError)
        assert KEY not in everything_said(caught.value, caplog.text)
        assert len(server.requests) == 1
    assert not elsewhere.requests


def test_a_redirect_at_home_is_followed(serve: Serve) -> None:
    def move(request: Request) -> Reply:
        return completion() if request.path.endswith("/") else Reply("", 307, {"Location": f"{request.path}/"})

    server = serve(move)
    assert backend(server).answer([call()])[0].text == GOOD
    assert json.dumps(server.requests[0].body) == json.dumps(server.requests[1].body)
