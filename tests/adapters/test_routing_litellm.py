"""Routing with LiteLLM: a real router in front of a server on this machine, and keys that nothing shows."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from servers import Reply, Request, Serve, completion, refusal

from r1ranker_ir import LLMProfile, RoutingAdapter
from r1ranker_ir.adapters.routing.messages import question_of
from r1ranker_ir.adapters.routing.profiles import read_profiles
from r1ranker_ir.errors import InputError, MissingExtraError

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
            importlib.import_module("r1ranker_ir.adapters.routing.gateway")
        except MissingExtraError as error:
            pytest.skip(str(error))
        assert not asked
        assert PRICES not in os.environ
    return sys.modules["litellm"]


# --- the question in a chat ----------------------------------------------------------------------------------------


def test_the_question_is_what_the_user_said_last() -> None:
    texts = [{"type": "text", "text": text} for text in ("What is", "this?")]
    parts = [texts[0], {"type": "image_url", "image_url": {}}, texts[1]]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert question_of(chat) == "Hello"
    answered = [*chat, {"role": "assistant", "content": "Hi"}]
    assert question_of([*answered, {"role": "user", "content": parts}]) == "What is\nthis?"
    assert question_of([*chat, {"role": "user", "content": " "}, {"role": "user", "content": None}]) == "Hello"
    for silent in ([], chat[:1], [{"role": "user", "content": [{"type": "image_url"}]}]):
        with pytest.raises(InputError, match=f"none of {len(silent)} messages is a user's text"):
            question_of(silent)


# --- the router ----------------------------------------------------------------------------------------------------


class LanguageModels:
    """Answers for all language models with their names, except for those that are down."""

    def __init__(self, serve: Serve) -> None:
        self.asked: list[str] = []
        self.down: set[str] = set()
        self.address = serve(self._answer).base_url

    def deployment(self, name: str) -> dict[str, Any]:
        where = {"api_base": self.address, "api_key": "none"}
        return {"model_name": name, "litellm_params": {"model": f"openai/{name}", **where}}

    def _answer(self, request: Request) -> Reply:
        model = request.body["model"]
        self.asked.append(model)
        if model in self.down:
            return refusal(500, "out of order")
        if not request.body.get("stream"):
            return completion(f"I am {model}")
        message = {"role": "assistant", "content": f"I am {model}"}
        choice = {"index": 0, "finish_reason": "stop", "delta": message}
        chunk = {"id": "1", "created": 1, "model": model, "object": "chat.completion.chunk", "choices": [choice]}
        text = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        return Reply(text, headers={"Content-Type": "text/event-stream"})


@pytest.fixture
def language_models(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> LanguageModels:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return LanguageModels(serve)


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


def test_without_deployments_names_are_litellms(litellm: Any, adapter: RoutingAdapter, tmp_path: Path) -> None:
    router = RoutingAdapter("r1ranker-iterative-tiny", llms=[LLMProfile("openai/gpt-4o-mini")]).as_litellm_router()
    assert router.model_list[0]["litellm_params"]["model"] == "openai/gpt-4o-mini"
    with pytest.raises(InputError, match=r"(?s)LiteLLM refuses model_list.*alpha"):
        adapter.as_litellm_router()


# --- secrets -------------------------------------------------------------------------------------------------------

KEY = "sk-Test0nly-9f8e7d6c5b4a39281706"


def everything_said(error: BaseException, log: str = "") -> str:
    return "\n".join([log, *traceback.format_exception(error), repr(error), repr(error.__cause__ or error.__context__)])


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
    assert KEY not in everything_said(caught.value)


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
    assert KEY not in everything_said(caught.value)
