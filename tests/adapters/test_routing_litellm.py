"""Routing with LiteLLM: prices of its models, and a real router in front of a server on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import LLMProfile, RoutingAdapter
from r1ranker_ir.adapters.routing.litellm_models import import_litellm, profiles_of_model_list
from r1ranker_ir.adapters.routing.messages import question_of
from r1ranker_ir.adapters.routing.profiles import read_profiles
from r1ranker_ir.errors import DataFileError, InputError, MissingExtraError

pytestmark = pytest.mark.latest

PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"


@pytest.fixture(scope="module")
def litellm() -> Any:
    """LiteLLM, imported as the package does it: without the network, and without a trace in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PRICES, raising=False)
        asked = []

        def refuse(host: Any, *arguments: Any, **options: Any) -> Any:
            asked.append(host)
            raise OSError("no network")

        patch.setattr(socket, "getaddrinfo", refuse)
        try:
            package = import_litellm("a test")
        except MissingExtraError as error:
            pytest.skip(str(error))
        assert not asked
        assert PRICES not in os.environ
    return package


# --- prices --------------------------------------------------------------------------------------------------------


def priced(model: str, **info: Any) -> dict[str, Any]:
    return {"model_name": "ours", "litellm_params": {"model": model}, "model_info": info}


def prices_of(*entries: Any) -> tuple[float, float]:
    [profile] = profiles_of_model_list(list(entries))
    return profile.price_in, profile.price_out


def test_prices_of_a_model_list(litellm: Any, caplog: pytest.LogCaptureFixture) -> None:
    known = litellm.model_cost["gpt-4o-mini"]
    prices = pytest.approx((known["input_cost_per_token"] * 1e6, known["output_cost_per_token"] * 1e6))
    assert prices_of(priced("openai/gpt-4o-mini")) == prices
    assert prices_of(priced("azure/my-deployment", base_model="gpt-4o-mini")) == prices
    assert prices_of(priced("gpt-4o-mini", input_cost_per_token="5e-7"))[0] == 0.5
    assert not caplog.records

    free = priced("gpt-4o-mini", input_cost_per_token=0, output_cost_per_token=0)
    assert prices_of(free) == (0, 0)
    assert prices_of(priced("gpt-4o-mini"), free) == prices
    assert "model_list[1]: the prices of 'ours' differ" in caplog.text


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            priced("openai/mine"),
            r"model_list\[0\]: LiteLLM knows no prices of the model 'openai/mine': give input_cost",
        ),
        ({"model_name": "ours"}, "LiteLLM knows no prices of the model None"),
        (priced("gpt-4o-mini", input_cost_per_token="low"), "input_cost_per_token is 'low': a number is needed"),
        (priced("gpt-4o-mini", input_cost_per_token=-1e-6), "price_in is -1"),
    ],
)
def test_prices_that_can_not_be_found(litellm: Any, entry: Any, said: str) -> None:
    with pytest.raises(DataFileError, match=said):
        prices_of(entry)


def test_litellm_is_needed_for_unknown_prices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    monkeypatch.setattr("importlib.import_module", not_installed)
    assert prices_of(priced("a", input_cost_per_token=1e-6, output_cost_per_token=2e-6)) == (1, 2)
    with pytest.raises(MissingExtraError, match=r"finding the prices of 'ours'.*r1ranker-ir\[litellm\]"):
        prices_of(priced("gpt-4o-mini"))


# --- the question in a chat ----------------------------------------------------------------------------------------


def test_the_question_is_what_the_user_said_last() -> None:
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "this?"},
    ]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert question_of(chat) == "Hello"
    assert (
        question_of([*chat, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": parts}])
        == "What is\nthis?"
    )
    assert question_of([*chat, {"role": "user", "content": " "}, {"role": "user", "content": None}]) == "Hello"
    for silent in ([], chat[:1], [{"role": "user", "content": [{"type": "image_url"}]}]):
        with pytest.raises(InputError, match=f"none of {len(silent)} messages is a user's text"):
            question_of(silent)


# --- the router ----------------------------------------------------------------------------------------------------


class LanguageModels(ThreadingHTTPServer):
    """Answers for all language models with their names, except for those that are down."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.down: set[str] = set()

    def deployment(self, name: str) -> dict[str, Any]:
        where = {"api_base": f"http://127.0.0.1:{self.server_port}/v1", "api_key": "none"}
        return {"model_name": name, "litellm_params": {"model": f"openai/{name}", **where}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LanguageModels

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body["model"]
        self.server.asked.append(model)
        message = {"role": "assistant", "content": f"I am {model}"}
        choice = {"index": 0, "finish_reason": "stop"}
        head = {"id": "1", "created": 1, "model": model}
        if model in self.server.down:
            kind, reply = "application/json", json.dumps({"error": {"message": "out of order"}})
        elif body.get("stream"):
            chunk = head | {"object": "chat.completion.chunk", "choices": [choice | {"delta": message}]}
            kind, reply = "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        else:
            whole = head | {"object": "chat.completion", "choices": [choice | {"message": message}]}
            kind, reply = "application/json", json.dumps(whole)
        self.send_response(500 if model in self.server.down else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(reply.encode())))
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays readable."""


@pytest.fixture
def language_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[LanguageModels]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = LanguageModels()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> RoutingAdapter:
    """It keeps its answers, so that the same questions are ranked once."""
    cache = tmp_path_factory.mktemp("cache") / "answers.sqlite"
    prices = {"alpha": 0.1, "beta": 0.9, "gamma": 0.3}
    llms = [LLMProfile(name, price, price, f"good at {name}") for name, price in prices.items()]
    return RoutingAdapter("r1ranker-iterative-tiny", llms=llms, cache=cache)


@pytest.fixture
def router(litellm: Any, adapter: RoutingAdapter, language_models: LanguageModels) -> Any:
    deployments = [language_models.deployment(llm.name) for llm in adapter.llms]
    made = adapter.as_litellm_router([*deployments, language_models.deployment("other")], num_retries=0)
    assert isinstance(made, litellm.Router)
    return made


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


QUESTIONS = ("who knows beta", "tell me of gamma", "alpha or what")


def text_of(response: Any) -> str:
    return str(response.choices[0].message.content)


def test_the_router_calls_the_chosen_one(router: Any, adapter: RoutingAdapter, language_models: LanguageModels) -> None:
    chosen = [adapter.choose(question).name for question in QUESTIONS]
    assert chosen == [adapter.model_for(chat(question)) for question in QUESTIONS]
    assert len(set(chosen)) > 1
    answers = [text_of(router.completion("r1ranker", chat(question))) for question in QUESTIONS]
    assert answers == [f"I am {name}" for name in chosen]

    async def together() -> list[Any]:
        return await asyncio.gather(*(router.acompletion("r1ranker", chat(question)) for question in QUESTIONS))

    assert [text_of(answer) for answer in asyncio.run(together())] == answers
    assert sorted(language_models.asked) == sorted(chosen * 2)


def test_the_router_streams(router: Any, adapter: RoutingAdapter) -> None:
    async def streamed() -> str:
        stream = await router.acompletion("r1ranker", chat(QUESTIONS[0]), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(streamed()) == f"I am {adapter.choose(QUESTIONS[0]).name}"


def test_what_fails_is_followed_by_the_next_of_the_ranking_each_once(
    router: Any, adapter: RoutingAdapter, language_models: LanguageModels, litellm: Any
) -> None:
    order = [llm.name for llm in adapter.order(QUESTIONS[0])]
    assert [llm.name for llm in adapter.fallbacks(QUESTIONS[0])] == order[1:]
    language_models.down.update(order[:2])
    assert text_of(router.completion("r1ranker", chat(QUESTIONS[0]))) == f"I am {order[2]}"
    assert language_models.asked == order

    language_models.down.update(order)
    language_models.asked.clear()
    with pytest.raises(litellm.InternalServerError, match="out of order"):
        asyncio.run(router.acompletion("r1ranker", chat(QUESTIONS[0])))
    assert language_models.asked == order

    language_models.asked.clear()
    assert text_of(router.completion("r1ranker", chat(QUESTIONS[0]), fallbacks=["other"])) == "I am other"
    assert language_models.asked == [order[0], "other"]


def test_other_names_are_not_the_rankers_business(router: Any, language_models: LanguageModels) -> None:
    assert text_of(router.completion("other", chat(QUESTIONS[0]))) == "I am other"
    assert text_of(asyncio.run(router.acompletion("gamma", chat(QUESTIONS[0])))) == "I am gamma"
    with pytest.raises(InputError, match="none of 1 messages is a user's text"):
        router.completion("r1ranker", [{"role": "user", "content": ""}])
    assert language_models.asked == ["other", "gamma"]


def test_every_language_model_needs_a_deployment(
    litellm: Any, adapter: RoutingAdapter, language_models: LanguageModels
) -> None:
    deployments = [language_models.deployment(llm.name) for llm in adapter.llms]
    with pytest.raises(InputError, match="model_list has no deployment of 'gamma'"):
        adapter.as_litellm_router(deployments[:2])
    with pytest.raises(InputError, match="name is 'alpha', which is also a deployment's"):
        adapter.as_litellm_router(deployments, name="alpha")


def test_deployments_of_the_file_that_the_profiles_came_from(
    litellm: Any, language_models: LanguageModels, tmp_path: Path
) -> None:
    info = {"input_cost_per_token": 1e-7, "output_cost_per_token": 1e-7}
    models = [language_models.deployment(name) | {"model_info": info} for name in ("alpha", "beta")]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"model_list": models}))  # JSON is YAML as well
    adapter = RoutingAdapter("r1ranker-iterative-tiny", llms=config)
    answer = text_of(adapter.as_litellm_router(num_retries=0).completion("r1ranker", chat("hello")))
    assert answer == f"I am {adapter.choose('hello').name}"


def test_without_deployments_names_are_litellms(litellm: Any, adapter: RoutingAdapter, tmp_path: Path) -> None:
    router = RoutingAdapter("r1ranker-iterative-tiny", llms=[LLMProfile("openai/gpt-4o-mini")]).as_litellm_router()
    assert router.model_list[0]["litellm_params"]["model"] == "openai/gpt-4o-mini"
    with pytest.raises(InputError, match=r"(?s)LiteLLM refuses model_list.*alpha"):
        adapter.as_litellm_router()


# --- secrets -------------------------------------------------------------------------------------------------------

KEY = "sk-Test0nly-9f8e7d6c5b4a39281706"


def everything_said(error: BaseException, log: str) -> str:
    said = [log, "".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        said += [str(link), repr(link)]
        link = link.__cause__ or link.__context__
    return "\n".join(said)


@pytest.mark.parametrize(
    "models",
    [
        [{"model_name": "a", "litellm_params": ["model: openai/a", f"api_key: {KEY}"]}],
        [{"model_name": "a", "litellm_params": f"api_key={KEY}"}],
        [{"model_name": "a", "litellm_params": {"model": {"api_key": KEY}}}],
        [{"model_name": "a", "litellm_params": {"model": ["openai/a", KEY]}}],
        [{"model_name": "a", "litellm_params": {"model": "openai/a"}, "model_info": [{"api_key": KEY}]}],
        [{"model_name": "a", "litellm_params": {"input_cost_per_token": {"api_key": KEY}}}],
        [{"model_name": "a", "litellm_params": {"input_cost_per_token": KEY, "output_cost_per_token": 1}}],
        [{"model_name": {"api_key": KEY}}],
        [f"api_key: {KEY}"],
        [[KEY]],
        {"litellm_params": {"api_key": KEY}},
        KEY,
    ],
    ids=lambda models: str(models)[:60],
)
def test_no_mistake_in_a_model_list_shows_a_key(
    litellm: Any, models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="r1ranker_ir")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"model_list": models}))
    for read in (lambda: profiles_of_model_list(models), lambda: read_profiles(config)):
        with pytest.raises(DataFileError) as caught:
            read()
        assert KEY not in everything_said(caught.value, caplog.text)


@pytest.mark.parametrize(
    "text",
    [
        f"model_list:\n  - model_name: a\n    litellm_params:\n      api_key: '{KEY}\n",
        f"model_list:\n  - model_name: a\n    litellm_params: {{api_key: {KEY}, model: a: b}}\n",
        f"model_list:\n  - litellm_params: {{api_key: *{KEY}}}\n",
        f"model_list: [{{api_key: {KEY}]\n",
        f"api_key: !{KEY} a\n",
        f"\tapi_key: {KEY}\n",
    ],
)
def test_no_mistake_in_yaml_shows_a_key(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(DataFileError, match="not valid YAML: line") as caught:
        read_profiles(config)
    assert KEY not in everything_said(caught.value, "") and KEY[3:12] not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llms.json", json.dumps([{"name": "a", "price_in": {"api_key": KEY}, "price_out": 1}])),
        ("llms.json", json.dumps([{"name": "a", "price_in": KEY, "price_out": 1}])),
        ("llms.json", json.dumps([{"name": ["a", KEY], "price_in": 1, "price_out": 1}])),
        ("llms.json", json.dumps([[KEY]])),
        ("llms.json", json.dumps({"master_key": KEY})),
        ("llms.csv", f"name,price_in,price_out\na,{KEY},1\n"),
    ],
)
def test_no_mistake_in_a_file_of_profiles_shows_a_key(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_profiles(tmp_path / name)
    assert KEY not in everything_said(caught.value, "")


@pytest.mark.parametrize(
    "models",
    [
        [{"model_name": "a", "litellm_params": ["openai/a", f"api_key: {KEY}"]}],
        [{"model_name": "a", "litellm_params": {"model": "openai/a", "api_key": KEY, "rpm": {"x": KEY}}}],
        [{"model_name": "a", "litellm_params": {"model": "nowhere-known", "api_key": KEY}}],
        [{"model_name": "a", "litellm_params": {"api_key": KEY}}],
        [{"model_name": {"api_key": KEY}}],
        [KEY],
        [{"model_name": "a"}],
    ],
    ids=lambda models: str(models)[:80],
)
def test_a_router_that_is_refused_shows_no_key(litellm: Any, models: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="r1ranker_ir")
    served = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}
    adapter = RoutingAdapter("m", llms=[LLMProfile("a", 1, 1)], strategy="direct", **served)
    options = {"redis_host": "127.0.0.1", "redis_password": KEY} if "rpm" not in str(models) else {}
    with pytest.raises(InputError) as caught:
        adapter.as_litellm_router(models, retry_policy=KEY if "nowhere" in str(models) else None, **options)
    assert KEY not in everything_said(caught.value, caplog.text)


def test_profiles_that_are_deployments_show_no_key() -> None:
    with pytest.raises(InputError, match=r"llms\[0\] is an object: give an LLMProfile") as caught:
        RoutingAdapter("m", llms=[{"model_name": "a", "litellm_params": {"api_key": KEY}}])
    assert KEY not in everything_said(caught.value, "")
