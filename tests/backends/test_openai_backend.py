"""The openai backend, against a server that misbehaves by script and against a real `transformers serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import DROP, GOOD, Reply, Request, ScriptedServer, Serve, completion, refusal

from r1ranker_ir.backends.base import Backend
from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.backends.thoughts import join_reasoning, split_thought
from r1ranker_ir.engine.engine import Engine
from r1ranker_ir.errors import BackendError, CheckpointError, InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.types import Answer, Call, Candidate, ClosedAt, Message, RankingRequest, Usage

FIRST = "<answer>[1]</answer>"
KEY = "sk-Test0nly-9f8e7d6c5b4a39281706"


def call(text: str = "which is off the subject?", *, identifiers: int = 3, form: str = "one") -> Call:
    return Call(
        messages=(Message("system", "You compare passages."), Message("user", text)),
        identifiers=tuple(f"[{number}]" for number in range(1, identifiers + 1)),
        form=form,  # type: ignore[arg-type]
    )


def backend(server: ScriptedServer, **options: Any) -> OpenAIBackend:
    return OpenAIBackend(options.pop("model", "m"), base_url=options.pop("base_url", server.base_url), **options)


# --- what is sent, what comes back ---------------------------------------------------------------------------------


def test_fulfils_the_protocol(serve: Serve) -> None:
    subject = backend(serve(completion()), context_length=4096, max_thought_tokens=100)
    assert isinstance(subject, Backend)
    assert (subject.name, subject.context_length, subject.answer_reserve) == ("m", 4096, 260)
    assert subject.batch_size >= 8 and subject.answer([]) == []
    assert {"<|im_start|>", "<|eot_id|>", "[INST]", "</s>", "<start_of_turn>", "<｜User｜>"} <= set(
        subject.control_tokens
    )
    counts = {"": 0, "flea life": 2, "life cycle, 2024": 1 + 2 + 1 + 4, "猫が好き": 6}
    assert {text: subject.count_tokens(text) for text in counts} == counts
    assert subject.count_prompt_tokens([Message("user", "flea")]) == 32 + 8 + 1


def test_request_and_answer(serve: Serve) -> None:
    server = serve(completion())
    [answer] = backend(server, max_thought_tokens=100, extra_body={"chat_template_kwargs": {"a": 1}}).answer([call()])
    assert answer == Answer(
        text=GOOD, thought="The second is off the subject.", usage=Usage(1, prompt_tokens=40, completion_tokens=12)
    )
    request = server.requests[0]
    assert request.path == "/v1/chat/completions"
    schema = request.body.pop("response_format")["json_schema"]["schema"]
    assert schema["properties"] == {
        "thought": {"type": "string"},
        "answer": {"type": "string", "enum": ["[1]", "[2]", "[3]"]},
    }
    assert request.body == {
        "logprobs": True,
        "top_logprobs": 20,
        "model": "m",
        "messages": [
            {"role": "system", "content": "You compare passages."},
            {"role": "user", "content": "which is off the subject?"},
        ],
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 260,
        "chat_template_kwargs": {"a": 1},
    }
    # Lone surrogates, as broken JSON leaves them in passages, can't be sent.
    backend(server, temperature=None, seed=None).answer([call("broken \ud83d text")])
    assert not {"temperature", "seed", "extra_body"} & server.requests[1].body.keys()
    assert server.requests[1].question == "broken ? text"


def test_the_beginning_of_the_answers_turn_is_sent_where_the_server_goes_on_from_it(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(completion(), completion(), completion())
    asked = call()
    begun = replace(asked, messages=(*asked.messages, Message("assistant", "So.\n<think>")))
    subject = backend(server)
    with caplog.at_level(logging.WARNING):
        subject.answer([begun])
        subject.answer([begun])
    assert caplog.text.count("it is left out. For vLLM and SGLang give extra_body=") == 1
    told = {"continue_final_message": True, "add_generation_prompt": False}
    backend(server, extra_body=told).answer([begun])
    left_out, again, sent = (request.body for request in server.requests)
    assert [turn["role"] for turn in left_out["messages"]] == ["system", "user"]
    assert again["messages"] == left_out["messages"]
    assert sent["messages"][-1] == {"role": "assistant", "content": "So.\n<think>"}
    assert sent["continue_final_message"] is True


def test_answers_get_room_for_their_identifiers(serve: Serve) -> None:
    server = serve(completion())
    subject = backend(server, max_thought_tokens=10, concurrency=1)
    names = tuple(f"a rather long title of number {number}" for number in range(40))
    named = replace(call(), identifiers=names, named=True, form="order")
    subject.answer([call(identifiers=50, form="order"), call(identifiers=20, form="order"), call(), named])
    *rooms, of_names = (request.body["max_tokens"] for request in server.requests)
    assert rooms == [410, 170, 170]
    assert of_names > 10 + sum(map(subject.count_tokens, names))


@pytest.mark.parametrize(
    ("reply", "text", "thought", "closed_at"),
    [
        (completion(f"a</think>{FIRST}"), f"a</think>{FIRST}", "a", None),
        (completion(FIRST), FIRST, "", None),
        (completion(f"It is this: {FIRST}"), f"It is this: {FIRST}", "It is this:", None),
        (completion("[1]"), "[1]", "", None),
        (completion(None), "", "", None),
        (completion(FIRST, reasoning_content="a"), f"<think>a</think>{FIRST}", "a", None),
        (completion(f"<think>b</think>{FIRST}", reasoning="a"), f"<think>a\n\nb</think>{FIRST}", "a\n\nb", None),
        (completion("<think>a, then b", finish="length"), "<think>a, then b", "a, then b", "limit"),
        (completion("", finish="length", reasoning_content="a, then"), "<think>a, then", "a, then", "limit"),
        (completion("a, then [1]", finish="length"), "<think>a, then [1]", "a, then [1]", "limit"),
        (completion(None, finish="length"), "", "", "limit"),
        (completion("<think>a, then b"), "<think>a, then b", "a, then b", "end_of_turn"),
        (completion("<think>a, then [1]", finish="eos"), "<think>a, then [1]", "a, then [1]", "end_of_turn"),
        (completion("", reasoning_content="a, then"), "<think>a, then</think>", "a, then", "end_of_turn"),
        (completion(f"<think>a{FIRST}"), f"<think>a{FIRST}", "a", "answer"),
        (completion("<think>a</think><answer>[1]", finish="length"), "<think>a</think><answer>[1]", "a", None),
    ],
)
def test_thought_and_text(serve: Serve, reply: Reply, text: str, thought: str, closed_at: ClosedAt | None) -> None:
    [answer] = backend(serve(reply)).answer([call()])
    assert (answer.text, answer.thought, answer.closed_at) == (text, thought, closed_at)
    assert answer.thought_closed == (closed_at is not None)
    assert answer.choice is None and answer.probabilities is None


def test_what_a_servers_prefix_cache_knew_is_not_computed(serve: Serve) -> None:
    def with_details(details: Any) -> Reply:
        body = json.loads(completion().body)
        body["usage"]["prompt_tokens_details"] = details
        return Reply(json.dumps(body))

    replies = [with_details({"cached_tokens": 30}), with_details({}), with_details(None), completion()]
    subject = backend(serve(*replies), concurrency=1)
    computed = [answer.prompt_tokens_computed for answer in subject.answer([call()] * 4)]
    assert computed == [10, None, None, None]


def test_a_small_prefix_cache_of_a_server_is_made_use_of(serve: Serve) -> None:
    """The server keeps the latest 6 of 16 rankings; were all asked in turn, it would know none of them."""
    kept: list[str] = []
    known: list[bool] = []

    def reply(request: Request) -> Reply:
        ranking = request.question.splitlines()[0]
        known.append(ranking in kept)
        kept[:] = [*(each for each in kept if each != ranking), ranking][-6:]
        return completion(f"<think>a</think><answer>[{request.question.count(' text ')}]</answer>")

    subject = backend(serve(reply), concurrency=1, batch_size=16)
    prompt = Prompt(load_template(), subject)
    candidates = tuple(Candidate(f"d{place}", f"a text {place}") for place in range(4))
    rankings = Engine(subject).run(
        eliminate(RankingRequest(f"query {number}", candidates), prompt) for number in range(16)
    )
    assert [ranking.order for ranking in rankings] == [(0, 1, 2, 3)] * 16
    # Each ranking asks twice in a row. Rounds forward and backward in turn would find 6 of the 16 from the second on.
    assert sum(known) >= 16


# --- order, concurrency, callers -----------------------------------------------------------------------------------


def echo(request: Request) -> Reply:
    """Answers with the question; the later ones sooner."""
    return Reply(completion(request.question).body, delay=0.02 * (5 - int(request.question) % 5))


def test_several_threads_share_the_bound_and_answers_keep_their_order(serve: Serve) -> None:
    server = serve(echo)
    subject = backend(server, concurrency=3)
    groups = [[str(10 * group + number) for number in range(6)] for group in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(lambda group: subject.answer([call(text) for text in group]), groups))
    assert [[answer.text for answer in answers] for answers in answered] == groups
    assert 2 <= server.most_active <= 3


def test_answers_inside_a_running_event_loop(serve: Serve) -> None:
    subject = backend(serve(completion()))

    async def caller() -> list[Answer]:
        return subject.answer([call(), call()])

    assert [answer.text for answer in asyncio.run(caller())] == [GOOD, GOOD]


def test_the_thread_ends_with_the_backend(serve: Serve) -> None:
    before = set(threading.enumerate())
    subject = backend(serve(completion()))
    subject.answer([call()])
    [thread] = [each for each in threading.enumerate() if each.name == "r1ranker-openai" and each not in before]
    del subject
    thread.join(timeout=60)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_answers_in_a_forked_process(serve: Serve) -> None:
    subject = backend(serve(completion()))
    subject.answer([call()])
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if [answer.text for answer in subject.answer([call()])] == [GOOD] else 1)
        finally:
            os._exit(2)
    hung = threading.Timer(60, os.kill, (child, signal.SIGKILL))
    hung.start()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the forked process did not get its answer"
    hung.cancel()


# --- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        refusal(429, "slow down", headers={"Retry-After": "1"}),
        Reply('{"error": {"code": 429, "message": "slow down"}}', headers={"Retry-After": "1"}),
    ],
    ids=lambda asked: asked.status,
)
def test_waits_as_long_as_a_server_asks(serve: Serve, asked: Reply) -> None:
    server = serve(asked, completion())
    [answer] = backend(server).answer([call()])
    assert answer.text == GOOD
    assert server.times[1] - server.times[0] >= 1.0  # the first pause is half a second at most unless it is asked for


@pytest.mark.parametrize(
    "trouble",
    [
        refusal(500, "oops"),
        refusal(503, "loading"),
        DROP,
        Reply('{"choices": [', promised=1000),
        Reply('{"choices": ['),
        Reply(""),
        Reply("{}", delay=1.5),
    ],
    ids=["500", "503", "dropped", "dropped in the body", "cut", "empty", "time-out"],
)
def test_tries_again(serve: Serve, trouble: Reply) -> None:
    server = serve(trouble, completion())
    [answer] = backend(server, timeout=1.0 if trouble.delay else 30.0, max_retries=1).answer([call()])
    assert answer.text == GOOD
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (refusal(429, "slow down"), ["status 429", "slow down", "lower concurrency"]),
        (refusal(500, "out of memory"), ["status 500", "out of memory", "log"]),
        (refusal(401, "Incorrect API key"), ["status 401", "Incorrect API key", "OPENAI_API_KEY"]),
        (refusal(404, "no such model"), ["status 404", "no such model", "base_url", "/v1"]),
        (Reply('{"detail": "Not Found"}', status=404), ["status 404", "Not Found"]),
        (Reply('{"error": "model m is not pulled"}', status=404), ["model m is not pulled"]),
        (Reply("<html>bad gateway</html>", status=502, headers={"Content-Type": "text/html"}), ["502", "bad gateway"]),
        (refusal(400, "This model's maximum context length is 512"), ["512", "context_length", "max_passage_tokens"]),
        (refusal(400, "'temperature' does not support 0.0"), ["status 400", "temperature=None"]),
        (refusal(422, "Extra inputs are not permitted: seed"), ["status 422", "seed=None"]),
        (refusal(400, "System role not supported"), ["status 400", "system text is empty"]),
        (refusal(400, "no"), ["status 400", "documentation"]),
        (refusal(400, "word " * 5000), ["status 400", "word word"]),
        (DROP, ["broke off", "Check that the server runs"]),
        (Reply("{}", delay=0.5), ["did not answer in time", "raise timeout (now 0.3 seconds)"]),
        (Reply("<html>hello</html>", headers={"Content-Type": "text/html"}), ["not a chat completion", "hello"]),
        (Reply('{"error": {"message": "provider is down"}}'), ["no chat completion", "provider is down"]),
        (Reply('{"choices": [{"message": {"content": 7}}]}'), ["not a chat completion"]),
    ],
)
def test_errors_name_the_thing_and_the_way_out(serve: Serve, trouble: Reply, says: list[str]) -> None:
    server = serve(trouble)
    with pytest.raises(BackendError) as caught:
        timeout = 0.3 if trouble.delay else 30.0
        backend(server, model="org/served", timeout=timeout, max_retries=0).answer([call()])
    for part in ["org/served", server.base_url, *says]:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 1000
    # What a refusal names is left out once, to see whether it was that; what names nothing, all that can be spared.
    named = any(word in trouble.body for word in ("seed", "temperature", "System role", '"no"', "word word"))
    assert len(server.requests) == (2 if named else 1)


def test_a_failure_cancels_the_rest_and_the_backend_stays_usable(serve: Serve) -> None:
    def picky(request: Request) -> Reply:
        return refusal(400, "not this one") if request.question == "bad" else Reply(completion().body, delay=0.05)

    server = serve(picky)
    subject = backend(server, concurrency=2)
    with pytest.raises(BackendError, match="not this one"):
        subject.answer([call("bad"), *(call(str(number)) for number in range(100))])
    assert len(server.requests) < 50
    assert [answer.text for answer in subject.answer([call("good")])] == [GOOD]


# --- secrets -------------------------------------------------------------------------------------------------------


def everything_said(error: BaseException, log: str) -> str:
    chain: list[str] = [log, "".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        chain += [str(link), repr(link), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(chain)


@pytest.mark.parametrize("shown", [12, 13, 20, len(KEY) - 1, len(KEY)])
def test_a_key_that_a_server_cuts_short_is_not_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch, shown: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(BackendError) as caught:
        backend(serve(refusal(401, f"wrong key: {KEY[:shown]}... or {KEY[:shown]}, {KEY[:6]}****"))).answer([call()])
    assert "wrong key: ***... or ***, sk-Tes****" in str(caught.value)


def test_the_key_is_sent_and_never_seen_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)

    def tell_all(request: Request) -> Reply:
        sent = request.headers["authorization"]
        if request.question == "fail":
            return refusal(401, f"{'x' * 390} Incorrect key: {sent}", headers={"X-Echo": "1"})
        if request.question == "garbled":
            return Reply(f"<html>{sent}</html>", headers={"Content-Type": "text/html"})
        return completion(f"{sent}<answer>[1]</answer>", reasoning_content=f"I was sent {sent}")

    server = serve(tell_all)
    subject = backend(server)
    said = [repr(subject), str(vars(subject))]
    said += [repr(answer) for answer in subject.answer([call("echo")])]
    for question in ("fail", "garbled"):
        with pytest.raises(BackendError) as caught:
            subject.answer([call(question)])
        said.append(everything_said(caught.value, caplog.text))
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
    assert KEY not in "\n".join(said) and KEY[:12] not in "\n".join(said)
    assert "I was sent Bearer ***" in said[2]


def test_credentials_in_the_url_are_sent_and_never_seen_again(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(lambda request: refusal(403, f"no entry for {request.headers['authorization']} or s3cr%t-word"))
    subject = backend(server, base_url=server.base_url.replace("//", "//ranker:s3cr%25t-word@"))
    with pytest.raises(BackendError) as caught:
        subject.answer([call()])
    assert server.requests[0].headers["authorization"] == "Basic cmFua2VyOnMzY3IldC13b3Jk"
    assert server.base_url in str(caught.value)
    said = everything_said(caught.value, caplog.text) + repr(subject) + str(vars(subject))
    for secret in ("s3cr%t-word", "s3cr%25t-word", "cmFua2VyOnMzY3IldC13b3Jk"):
        assert secret not in said


def test_openai_itself_needs_a_key_from_the_environment_alone(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="OPENAI_API_KEY"):
        OpenAIBackend("gpt-5")
    with pytest.raises(TypeError):
        OpenAIBackend("m", base_url="http://127.0.0.1:1/v1", api_key=KEY)  # type: ignore[call-arg]
    said = "<think>none fits</think><answer>[1]</answer>"
    server = serve(
        completion(said),
        lambda request: refusal(403, f"{request.headers['x-gateway-key']} of {request.headers['x-team']}"),
    )
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")  # a placeholder, which garbles no answer
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway-Key: gw-1234567890\nX-Team: retrieval")
    subject = OpenAIBackend("m")
    assert subject.answer([call()])[0].text == said
    with pytest.raises(BackendError, match=r": \*\*\* of retrieval"):
        subject.answer([call()])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-“quoted”")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        OpenAIBackend("m")
    assert "quoted" not in str(caught.value)


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({"model": " "}, {"concurrency": 0}, {"batch_size": 0}, {"max_thought_tokens": 0}, {"max_retries": -1}),
        *({"timeout": 0.0}, {"context_length": 0}, {"limit_field": "max_new_tokens"}),
        *({"base_url": url} for url in ("127.0.0.1:8000/v1", "localhost:8000/v1", "http://127.0.0.1:none/v1")),
        *({"base_url": url} for url in ("http:///v1", f"http://127.0.0.1:1/v1?key={KEY}")),
    ],
)
def test_bad_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        OpenAIBackend(**{"model": "m", "base_url": "http://127.0.0.1:1/v1", **options})
    assert KEY not in str(caught.value)


WITHOUT_SDK = """
import sys; sys.modules["openai"] = None
from r1ranker_ir.errors import MissingExtraError
try:
    import r1ranker_ir.backends.openai
except MissingExtraError as error:
    print(error)
"""
ALONE = """
import sys; from r1ranker_ir.backends.openai import OpenAIBackend
OpenAIBackend("m", base_url="http://127.0.0.1:1/v1").count_tokens("a b")
print("loaded:", [name for name in ("torch", "transformers") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("program", "said"), [(WITHOUT_SDK, 'pip install "r1ranker-ir[openai]"'), (ALONE, "loaded: []")]
)
def test_what_it_needs(program: str, said: str) -> None:
    """A missing SDK is named with its extra, and no model library is loaded."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said in ran.stdout


THOUGHTS = st.text(st.sampled_from("ab [1]\n.")).map(str.strip)


@given(THOUGHTS, st.sampled_from(["<answer>[1]</answer>", "\n\n<answer>[2] > [1]</answer>", "[1]"]), st.booleans())
def test_a_thought_is_found_with_and_without_its_opening_tag(thought: str, rest: str, opened: bool) -> None:
    assert split_thought(f"{'<think>' if opened else ''}{thought}</think>{rest}") == (thought, rest)
    if thought:
        assert split_thought(join_reasoning(thought, rest)) == (thought, rest)


# --- a real server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A `transformers serve` process on loopback that loads the folder which a request names; its base_url."""
    for needed in ("torch", "transformers", "fastapi", "uvicorn"):
        pytest.importorskip(needed)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--log-level", "error"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, env=environment)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(1500):
            with contextlib.suppress(OSError), direct.open(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_real_server_without_the_model(transformers_serve: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "no-model-here")
    with pytest.raises(BackendError) as caught:
        OpenAIBackend(missing, base_url=transformers_serve, max_retries=0).answer([call()])
    assert missing in str(caught.value) and transformers_serve in str(caught.value)


@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_the_embedded_model_ranks_over_a_server_as_it_does_here(transformers_serve: str, strategy: str) -> None:
    model = str(TINY_CHECKPOINT)
    passages = ("cycle lanes in the town", "a life cycle of the flea takes weeks", "harvest of grain in autumn")
    requests = [
        RankingRequest(query, tuple(Candidate(str(number), text) for number, text in enumerate(passages)))
        for query in ("life cycle of a flea", "grain harvest")
    ]
    remote = Ranker(model, strategy=strategy, backend="openai", base_url=transformers_serve, tokenizer=model)
    here = Ranker(model, strategy=strategy)
    for over_http, locally in zip(remote.rank(requests), here.rank(requests), strict=True):
        assert over_http.repairs == 0
        assert over_http.order == locally.order
        assert [step.thought for step in over_http.steps] == [step.thought for step in locally.steps]
        assert all(step.thought and not step.thought_closed for step in over_http.steps)
        assert over_http.usage.prompt_tokens == locally.usage.prompt_tokens


def test_counts_with_the_tokenizer_of_the_model(make_checkpoint: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    random_llama = make_checkpoint("chatml")
    with pytest.raises(CheckpointError, match="nowhere"):
        OpenAIBackend("m", base_url="http://127.0.0.1:1/v1", tokenizer=str(random_llama / "nowhere"))
    tokenizer = AutoTokenizer.from_pretrained(random_llama)
    subject = OpenAIBackend("m", base_url="http://127.0.0.1:1/v1", tokenizer=str(random_llama))
    text = "the life cycle of the flea takes two weeks\nor eight months, and 12 days"
    assert subject.count_tokens(text) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert {"<|im_start|>", "<|im_end|>"} <= set(subject.control_tokens)
    assert "[INST]" not in subject.control_tokens
    assert subject.cut_text(text, subject.count_tokens("the life cycle")) == "the life cycle"
