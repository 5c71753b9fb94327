"""Replies of chat servers: failures with status 200, answers in the thought's field, and forms of every kind."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import GOOD, Reply, ScriptedServer, Serve, completion, serving
from test_openai_backend import backend, call

from r1ranker_ir.backends.replies import FailedReplyError, UnreadableReplyError, read_reply
from r1ranker_ir.backends.replies import Reply as ReadReply
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.cache.records import key_maker
from r1ranker_ir.errors import BackendError, CallError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Answer, Candidate, RankingRequest, Usage

ORDER = "<answer>[3] > [1] > [2]</answer>"
THREE = RankingRequest("how long do fleas live", tuple(Candidate(f"d{place}", f"text {place}") for place in range(3)))


def ok(**content: Any) -> Reply:
    return Reply(json.dumps(content))


def choice(**fields: Any) -> Reply:
    return ok(choices=[{"index": 0, "message": {"role": "assistant", "content": ""}, **fields}])


def part(text: str, kind: str = "text") -> dict[str, str]:
    return {"type": kind, "text": text}


def rank(server: ScriptedServer, strategy: str = "direct", **options: Any) -> Any:
    options = {"max_retries": 2, **options}
    ranker = Ranker("m", strategy=strategy, backend="openai", base_url=server.base_url, **options)
    return ranker.rank([THREE])[0]


# --- failures with status 200 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        ok(error={"message": "Provider returned error", "code": 502}),
        ok(error={"message": "slow down", "code": "429"}),
        ok(error={"message": "slow down", "type": "rate_limit_exceeded", "code": None}),
        ok(error={"message": "busy", "status": "UNAVAILABLE"}),
        ok(error="overloaded"),
        ok(error={"message": "down"}, choices=[]),
        ok(object="error", message="internal", code=500),
        ok(id="x", choices=[]),
        choice(finish_reason="error", error={"code": 502, "message": "upstream"}),
        choice(finish_reason="error"),
        choice(finish_reason="ERROR"),
        choice(finish_reason="error", message=None),
        choice(finish_reason="abort"),
        choice(finish_reason="insufficient_system_resource"),
        choice(finish_reason="content_filter", message={"content": "The third"}),
        choice(finish_reason="SAFETY"),
    ],
    ids=lambda failure: failure.body[:90],
)
def test_failures_are_tried_again_and_never_kept(serve: Serve, failure: Reply, tmp_path: Path) -> None:
    server = serve(failure, completion(ORDER))
    for _ in range(2):
        assert rank(server, cache=tmp_path / "cache.sqlite").order == (2, 0, 1)
    assert len(server.requests) == 2
    with pytest.raises(BackendError, match="sent no chat completion") as caught:
        rank(serve(failure), max_retries=0, cache=tmp_path / "other.sqlite")
    assert "m" in str(caught.value)
    with CompletionsCache(tmp_path / "other.sqlite") as cache:
        assert cache.info().entries == 0


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (ok(error={"message": "beyond the context", "code": 400}), "status 400"),
        (ok(error={"message": "prompt too long", "type": "invalid_request_error"}), "status 400"),
        (ok(error={"message": "wrong key", "code": 401}), "OPENAI_API_KEY"),
        (ok(error={"message": "gone", "code": "404"}), "base_url"),
        (Reply("<html>welcome</html>"), "welcome"),
        (ok(choices="none"), "none"),
        (ok(choices=[7]), "7"),
    ],
    ids=lambda value: value.body if isinstance(value, Reply) else value,
)
def test_what_would_fail_again_is_not_tried_again(serve: Serve, failure: Reply, says: str) -> None:
    server = serve(failure)
    with pytest.raises(BackendError, match=says):
        rank(server)
    assert len(server.requests) == 1


def test_a_filter_is_asked_twice_at_most(serve: Serve) -> None:
    server = serve(choice(finish_reason="content_filter"))
    with pytest.raises(CallError, match="content filter") as caught:
        rank(server, max_retries=5)
    assert caught.value.refused
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        completion(""),
        completion("  \n"),
        completion([]),
        completion("", finish="length"),
        completion("<think>the thi", finish="length", usage=(40, 5)),
        completion("The third", finish="max_output_reached"),
    ],
    ids=lambda reply: reply.body[-160:],
)
def test_empty_and_truncated_answers_are_repaired_and_asked_for_again(
    serve: Serve, reply: Reply, tmp_path: Path
) -> None:
    server = serve(reply, completion(ORDER))
    first, second = (rank(server, cache=tmp_path / "cache.sqlite") for _ in range(2))
    assert (first.order, first.repairs) == ((0, 1, 2), 1)
    assert (second.order, second.repairs) == ((2, 0, 1), 0)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        completion("<think>the thi", finish="length", usage=(40, 1024 + 160)),
        completion("<think>the thi", finish="length", usage=None),
        completion("I can't tell."),
        completion("I can't tell.", finish="eos"),
    ],
    ids=lambda reply: reply.body[-160:],
)
def test_what_the_model_itself_could_not_answer_is_kept(serve: Serve, reply: Reply, tmp_path: Path) -> None:
    server = serve(reply)
    for _ in range(2):
        assert rank(server, cache=tmp_path / "cache.sqlite").repairs == 1
    assert len(server.requests) == 1


def test_empty_answers_of_older_caches_are_not_served(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(completion(ORDER)), tmp_path / "cache.sqlite"
    ranker = Ranker("m", strategy="direct", backend="openai", base_url=server.base_url, cache=path)
    [asked] = [Prompt(ranker.template, ranker.backend).ask("direct", THREE, (0, 1, 2))]
    key = key_maker(ranker.backend.identity)(asked)
    with CompletionsCache(path) as cache:
        cache.store({key: Answer("", usage=Usage(1, 40, 0))}, model="m")
    assert ranker.rank([THREE])[0].order == (2, 0, 1)
    assert ranker.rank([THREE])[0].order == (2, 0, 1)
    assert len(server.requests) == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (1,)


# --- answers in the thought's field ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("content", [None, "", "\n\n", []])
@pytest.mark.parametrize(
    "thought", [f"the third{ORDER}", f"the third</think>{ORDER}", f"<think>the third</think>\n{ORDER}"]
)
def test_an_answer_in_the_thoughts_field_counts(serve: Serve, field: str, content: Any, thought: str) -> None:
    ranking = rank(serve(completion(content, **{field: thought})))
    assert (ranking.order, ranking.repairs) == ((2, 0, 1), 0)
    [step] = ranking.steps
    assert step.thought == "the third"


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "thinking", "thinking": [part("a")]}, part(ORDER)]},
        {"content": [part("<answer>[3] > "), part("[1] > [2]</answer>", "output_text")]},
        {"content": [ORDER]},
        {"content": {"text": ORDER}},
        {"content": None, "reasoning_details": [part(f"a{ORDER}", "reasoning.text")]},
        {"content": None, "reasoning_content": [part(f"a{ORDER}")]},
        {"content": ORDER, "reasoning_content": "a [1]</think>"},
        {"content": "Done.", "reasoning": f"a{ORDER}"},
    ],
    ids=str,
)
def test_parts_are_read(serve: Serve, message: dict[str, Any]) -> None:
    ranking = rank(serve(ok(choices=[{"index": 0, "finish_reason": "stop", "message": message}])))
    assert (ranking.order, ranking.repairs) == ((2, 0, 1), 0)


def test_what_a_thought_says_is_its_own(serve: Serve) -> None:
    """A thought without an answer is no answer, and one in the text goes before one in the thought."""
    thought = rank(serve(completion("", reasoning_content="[3] is better than [1], and [2] is worst")))
    assert (thought.order, thought.repairs) == ((0, 1, 2), 1)
    assert thought.steps[0].thought.startswith("[3] is better")
    both = rank(serve(completion(ORDER, reasoning_content="first I thought <answer>[1] > [2] > [3]</answer>")))
    assert (both.order, both.repairs) == ((2, 0, 1), 0)


# --- forms of every kind --------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["[1]", GOOD])
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
FIELDS = "content reasoning_content reasoning reasoning_details thinking role refusal text type".split()


def objects(*names: str, inner: st.SearchStrategy[Any] = ANYTHING) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, inner))


PARTS = st.lists(objects("type", "text", "thinking", "content"), max_size=3)
MESSAGES = objects(*FIELDS, inner=ANYTHING | PARTS)
CHOICE = {"message": MESSAGES | ANYTHING, "finish_reason": ANYTHING, "error": ANYTHING, "index": ANYTHING}
CHOICES = st.fixed_dictionaries({}, optional=CHOICE)
ERRORS = objects("message", "code", "type", "status", "metadata", "detail", "error")
USAGES = objects("prompt_tokens", "completion_tokens", "prompt_tokens_details") | ANYTHING
REPLY = {"choices": st.lists(CHOICES | ANYTHING, max_size=2) | ANYTHING, "error": ERRORS | ANYTHING, "usage": USAGES}
REPLY |= {"object": st.sampled_from(["error", "chat.completion"]), "message": ANYTHING, "code": ANYTHING}
REPLIES = ANYTHING | st.fixed_dictionaries({}, optional=REPLY)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REPLIES)
def test_any_json_is_an_answer_or_one_of_two_errors(content: Any) -> None:
    assert_read_or_refused(json.dumps(content).encode())


@example(b"[" * 200_000)
@example(b'{"choices":' * 50_000)
@example(b'{"choices": [{"message": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}")
@example(b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}")
@example(b'{"usage": {"prompt_tokens": ' + b"9" * 6000 + b"}}")
@example(b'{"choices": [{"message": {"content": "\\ud83d"}}]}')
@example(b"\xff\xfe")
@given(st.binary(max_size=200) | st.text(st.sampled_from('{}[]":,\\u0eE-+.choices'), max_size=60).map(str.encode))
def test_any_bytes_are_too(body: bytes) -> None:
    assert_read_or_refused(body)


def assert_read_or_refused(body: bytes) -> None:
    try:
        reply = read_reply(body)
    except FailedReplyError as error:
        assert 400 <= error.status <= 599
        return
    except UnreadableReplyError:
        return
    assert isinstance(reply, ReadReply)
    assert isinstance(reply.content.encode(), bytes) and isinstance(reply.reasoning.encode(), bytes)
    for count in (reply.prompt_tokens, reply.completion_tokens, reply.reused_tokens):
        assert count is None or (type(count) is int and count >= 0)
    assert reply.is_final(100) in (True, False)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(REPLIES, st.sampled_from([200, 201, 204, 400, 403, 500]))
def test_whatever_a_server_sends_is_an_answer_or_a_backend_error(
    shared_server: tuple[ScriptedServer, Any], content: Any, status: int
) -> None:
    server, subject = shared_server
    server.behaviours = [Reply(json.dumps(content), status=status)]
    try:
        [answer] = subject.answer([call()])
    except BackendError as error:
        assert len(str(error)) < 2000
    else:
        assert answer.usage.prompt_tokens >= 0 and answer.usage.completion_tokens >= 0


@pytest.fixture(scope="module")
def shared_server() -> Any:
    with serving(completion()) as server:
        yield server, backend(server, max_retries=0)


@pytest.mark.parametrize("counts", [(-5, -7), (10**12, 10**12), (True, True), ("7", None), (1.5, 2.5)])
def test_counts_that_can_be_none_are_not_believed(serve: Serve, counts: tuple[Any, Any]) -> None:
    body = json.loads(completion().body)
    body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": counts[0]}
    subject = backend(serve(Reply(json.dumps(body))))
    [answer] = subject.answer([call()])
    assert answer.usage == Usage(1, subject.count_prompt_tokens(call().messages), subject.count_tokens(GOOD))
    assert answer.prompt_tokens_computed is None


@pytest.mark.parametrize("status", [200, 400])
def test_a_huge_reply_is_not_read_to_its_end(serve: Serve, status: int) -> None:
    body = json.dumps({"choices": [{"message": {"content": "word " * 20_000_000}}]})
    server = serve(Reply(body, status=status))
    subject = backend(server, max_retries=0)
    tracemalloc.start()
    with pytest.raises(BackendError) as caught:
        subject.answer([call()])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(caught.value)) < 2000
    # The server's own copies of 100 MB are made in this process too.
    assert peak < 250 * 2**20
