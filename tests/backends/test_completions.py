"""`api="completions"`: through servers in three forms and one that can do nothing, rankings are the local backend's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import r1ranker
from completion_servers import ModelServer, RefusedError, of_choice, of_grammar, of_regex
from servers import Reply, Request, Serve, refusal
from test_openai_backend import KEY, everything_said

from r1ranker_ir.backends.openai import OpenAIBackend
from r1ranker_ir.cli.rerank import summary_line
from r1ranker_ir.errors import BackendError, InputError
from r1ranker_ir.eval.output.manifest import counts
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.models.loading import load_model
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import find_ranker
from r1ranker_ir.runs.traces import TraceWriter, read_trace
from r1ranker_ir.types import Candidate, Ranking, RankingRequest

FORMS: dict[str, dict[str, Any]] = {
    "vllm": {
        "texts": of_choice("structured_outputs"),
        "scores": "numbered",
        "most_scores": 20,
        "stop_field": "stop_reason",
        "tells_tokens": "return_token_ids",
    },
    "vllm before": {"texts": of_choice("guided_choice"), "scores": "numbered", "most_scores": 5},
    "sglang": {"texts": of_regex, "scores": "masked", "stop_field": "matched_stop"},
    "llama.cpp": {"texts": of_grammar, "scores": "content", "tells_tokens": "verbose"},
    "unheld": {"scores": "openai", "most_scores": 100},
    "held, silent": {"texts": of_grammar, "takes_tokens": False},
    "nothing": {"takes_tokens": False},
}
LOADED: dict[str, Any] = {
    **{"device": "cpu", "dtype": "float32", "device_map": None},
    **{"trust_remote_code": False, "revision": None},
}
TEXTS = [
    "A flea lives for two or three months and bites cats.",
    "Sheep are shorn in spring, and the wool is spun.",
    "The kettle boils at one hundred degrees at sea level.",
    "Fleas are small insects without wings.",
    "Wool is washed and carded before it is dyed.",
]


def request(query: str, count: int = 5) -> RankingRequest:
    texts = [TEXTS[place % 5] + (f" ({place})" if place > 4 else "") for place in range(count)]
    return RankingRequest(query, tuple(Candidate(f"d{place}", text) for place, text in enumerate(texts)))


REQUESTS = [request("how long do fleas live"), request("when does water boil")]


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_model(str(TINY_CHECKPOINT), **LOADED)


@pytest.fixture
def start(serve: Serve, tiny: tuple[Any, Any]) -> Callable[..., tuple[dict[str, Any], ModelServer]]:
    """Starts a server in one of the forms; gives a ranker's options for it, and its behaviour."""

    def started(form: str, **changes: Any) -> tuple[dict[str, Any], ModelServer]:
        server = ModelServer(**{"model": tiny[0], "tokenizer": tiny[1], **FORMS[form], **changes})
        options = {"backend": "openai", "base_url": serve(server).base_url, "api": "completions"}
        return {**options, "settings_from": TINY_CHECKPOINT, "max_retries": 0}, server

    return started


def ranker(model: str | Path, **options: Any) -> Ranker:
    options = {"max_thought_tokens": 24, "max_repair_rate": 1.0, **options}
    return find_ranker(options.pop("name", model), model, options.pop("strategy", None), options).open()


@pytest.fixture(scope="module")
def local() -> Callable[..., list[Ranking]]:
    """What the local backend makes of the requests; the same options are asked for once."""
    known: dict[str, list[Ranking]] = {}

    def ranked(model: Path = TINY_CHECKPOINT, **options: Any) -> list[Ranking]:
        key = f"{model} {options}"
        if key not in known:
            known[key] = ranker(model, device="cpu", dtype="float32", **options).rank(REQUESTS)
        return known[key]

    return ranked


def assert_same(served: list[Ranking], local: list[Ranking], *, probabilities: bool = True) -> None:
    assert [each.order for each in served] == [each.order for each in local]
    for one, other in zip(served, local, strict=True):
        for step, wanted in zip(one.steps, other.steps, strict=True):
            assert (step.thought, step.text, step.closed_at) == (wanted.thought, wanted.text, wanted.closed_at)
            assert (step.thought_closed, step.usage) == (wanted.thought_closed, wanted.usage)
            if probabilities and wanted.probabilities is not None:
                assert step.probabilities == pytest.approx(wanted.probabilities, abs=0.02)


WAYS: dict[str, dict[str, Any]] = {
    "thinking": {"strategy": "iterative"},
    "straight": {"strategy": "iterative", "think": "never"},
    "first": {"strategy": "iterative", "think": "first", "max_thought_tokens": 40},
    "confident": {"strategy": "iterative", "schedule": "confident:0.6", "max_thought_tokens": 0},
    "order": {"strategy": "direct", "max_thought_tokens": 4},
    "votes": {"strategy": "direct", "votes": 2, "max_thought_tokens": 8},
}


@pytest.mark.parametrize(
    ("form", "way"),
    [
        *((form, way) for form in ("vllm", "sglang", "llama.cpp") for way in WAYS),
        *(("vllm before", way) for way in ("thinking", "straight")),
        *(("held, silent", way) for way in ("thinking", "order")),
        ("unheld", "order"),
    ],
)
def test_rankings_are_those_of_the_local_backend(
    start: Callable[..., Any], local: Callable[..., list[Ranking]], form: str, way: str
) -> None:
    options, server = start(form)
    served = ranker("m", **options, **WAYS[way]).rank(REQUESTS)
    assert_same(served, local(**WAYS[way]), probabilities=form not in ("held, silent", "unheld"))
    chosen_by = "log_probabilities" if form == "unheld" else "constraint"
    assert {step.chosen_by for each in served for step in each.steps} == {chosen_by}
    assert all(isinstance(body["prompt"], str) != server.takes_tokens for body in server.bodies[2:])


@pytest.mark.parametrize(
    ("form", "recipe", "way"),
    [
        *((form, "chatml", way) for form in ("vllm", "sglang", "llama.cpp") for way in ("straight", "FIRST")),
        ("vllm", "thinking", "setwise"),
        ("vllm", "llama3", "iterative"),
    ],
)
def test_other_vocabularies_templates_and_scores_below_those_that_a_server_tells(
    start: Callable[..., Any],
    local: Callable[..., list[Ranking]],
    make_checkpoint: Callable[..., Path],
    form: str,
    recipe: str,
    way: str,
) -> None:
    checkpoint = make_checkpoint(recipe)
    model, tokenizer = load_model(str(checkpoint), **LOADED)
    options, _ = start(form, model=model, tokenizer=tokenizer)
    # Random bytes, which is what these models think, are the same tokens again only where a server tells them.
    given: dict[str, Any] = {"strategy": way, "max_thought_tokens": 12}
    given = {"FIRST": {"name": "first"}, "straight": WAYS["straight"]}.get(way, given)
    served = ranker("m", **{**options, "settings_from": checkpoint}, **given).rank(REQUESTS)
    assert_same(served, local(checkpoint, **given))


def test_a_server_that_can_do_nothing_of_it_is_read_from_text(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    options, _ = start("nothing")
    with caplog.at_level(logging.WARNING):
        opened = ranker("m", **options, strategy="iterative")
        rankings = opened.rank(REQUESTS)
    assert caplog.text.count("answers are read from text, without probabilities") == 1
    steps = [step for each in rankings for step in each.steps]
    assert {step.chosen_by for step in steps} == {"parsing"} and not any(step.probabilities for step in steps)
    assert all("</think>\n<answer>" in step.text and step.text.endswith("</answer>") for step in steps)
    assert opened.summary.chosen_by_parsing == len(steps)
    with pytest.raises(InputError, match="this backend, or the server that it asks, gives none"):
        ranker("m", **options, strategy="iterative", think="never").rank(REQUESTS[:1])


def test_abilities_are_found_out_once_and_told(
    start: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, server = start("vllm")
    opened = ranker("m", **options, strategy="iterative", think="never")
    rankings = opened.rank([*REQUESTS, request("who shears sheep")])
    trials = [body for body in server.bodies if len(body["prompt"]) < 20]
    assert len(trials) == 5
    summary = opened.summary
    assert summary.chosen_by_constraint == summary.usage.calls
    assert f"{summary.usage.calls} answers chosen under a constraint" in summary_line(summary)
    assert counts(summary)["chosen_by_constraint"] == summary.usage.calls
    with TraceWriter(tmp_path / "t.jsonl", "iterative") as writer:
        for each in rankings:
            writer.write(each)
    assert [each.ranking for each in read_trace(tmp_path / "t.jsonl")] == rankings
    assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])["steps"][0]["chosen_by"] == "constraint"


def test_answers_keep_how_they_were_chosen_in_a_cache(start: Callable[..., Any], tmp_path: Path) -> None:
    options, server = start("sglang")
    given = {**options, "strategy": "iterative", "think": "never", "cache": tmp_path / "answers.sqlite"}
    first = ranker("m", **given).rank(REQUESTS)
    asked = len(server.bodies)
    again = ranker("m", **given)
    assert again.rank(REQUESTS) == first and len(server.bodies) == asked
    assert again.summary.chosen_by_constraint == again.summary.cached_calls > 0


def test_a_constraint_that_is_refused_later_is_left_out(
    start: Callable[..., Any],
    local: Callable[..., list[Ranking]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def texts(body: dict[str, Any]) -> list[str] | None:
        found = of_grammar(body)
        if found and "qzx" not in found:
            raise RefusedError(f"failed to parse grammar for {KEY}")
        return found

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    options, _ = start("llama.cpp", texts=texts)
    with caplog.at_level(logging.WARNING):
        served = ranker("m", **options, **WAYS["order"]).rank(REQUESTS)
    assert_same(served, local(**WAYS["order"]), probabilities=False)
    assert "the server refuses grammar from now on: failed to parse grammar for ***" in caplog.text
    assert KEY not in caplog.text
    assert {step.chosen_by for each in served for step in each.steps} == {"log_probabilities"}


def test_published_answers_are_written_freely(start: Callable[..., Any], local: Callable[..., list[Ranking]]) -> None:
    given = {"strategy": "iterative", "answers": "published", "max_thought_tokens": 12}
    options, _ = start("vllm")
    served, here = ranker("m", **options, **given).rank(REQUESTS), local(**given)
    assert [each.order for each in served] == [each.order for each in here]
    assert [step.thought for each in served for step in each.steps] == [s.thought for each in here for s in each.steps]


def picky(start: Callable[..., Any], refuses: Callable[[dict[str, Any]], Reply | None], **changes: Any) -> Any:
    """Options for a server that refuses some bodies, and all that it was sent."""
    options, server = start("llama.cpp", **changes)
    sent: list[dict[str, Any]] = []

    def reply(request: Request) -> Reply:
        sent.append(request.body)
        return refuses(request.body) or server(request)

    return reply, sent, options


@pytest.mark.parametrize("part", ["seed", "temperature"])
def test_refused_fields_are_remembered_or_left_out_by_hand(
    serve: Serve, start: Callable[..., Any], local: Callable[..., list[Ranking]], part: str
) -> None:
    reply, sent, options = picky(start, lambda body: refusal(400, f"unknown field {part}") if part in body else None)
    options |= {"base_url": serve(reply).base_url, "concurrency": 1}
    assert_same(ranker("m", **options, **WAYS["thinking"]).rank(REQUESTS), local(**WAYS["thinking"]))
    assert [part in body for body in sent].count(True) == 1
    sent.clear()
    ranker("m", **options, **WAYS["thinking"], leave_out=part).rank(REQUESTS[:1])
    assert not any(part in body for body in sent)


def test_what_is_left_out_by_hand_is_not_asked_for(start: Callable[..., Any]) -> None:
    options, server = start("llama.cpp")
    left_out = "response_format,logprobs,system"
    [ranking] = ranker("m", **options, **WAYS["thinking"], leave_out=left_out).rank(REQUESTS[:1])
    assert {step.chosen_by for step in ranking.steps} == {"parsing"}
    assert not any({"grammar", "regex", "logprobs", "n_probs"} & body.keys() for body in server.bodies)
    with pytest.raises(InputError, match="leave_out names max_tokens"):
        ranker("m", **options, strategy="direct", leave_out="max_tokens").rank(REQUESTS[:1])


def test_a_server_that_fails_at_what_it_does_not_know_is_asked_twice(serve: Serve, start: Callable[..., Any]) -> None:
    def refuses(body: dict[str, Any]) -> Reply | None:
        unknown = {"structured_outputs", "guided_choice", "regex", "return_token_ids"} & body.keys()
        return refusal(500, "std::exception") if unknown else None

    reply, sent, options = picky(start, refuses)
    options |= {"base_url": serve(reply).base_url, "max_retries": 5}
    found = ranker("m", **options, **WAYS["straight"])
    assert {step.chosen_by for step in found.rank(REQUESTS[:1])[0].steps} == {"constraint"}
    assert sum("regex" in body for body in sent) == 2


def test_more_tokens_than_were_asked_for_are_not_believed(serve: Serve, start: Callable[..., Any]) -> None:
    told = {"text": "", "finish_reason": "stop", "token_ids": [5] * 200_000}
    thought = Reply(json.dumps({"choices": [told]}))
    reply, _, options = picky(start, lambda body: thought if "</think>" in body.get("stop", ()) else None)
    options["base_url"] = serve(reply).base_url
    [ranking] = ranker("m", **options, **WAYS["thinking"]).rank(REQUESTS[:1])
    assert {step.thought for step in ranking.steps} == {""}


def test_a_constraint_is_kept_where_something_else_was_refused(serve: Serve, start: Callable[..., Any]) -> None:
    trouble = [True]
    reply, _, options = picky(
        start, lambda body: refusal(400, "not this one") if len(body["prompt"]) > 20 and trouble else None
    )
    options["base_url"] = serve(reply).base_url
    opened = ranker("m", **options, **WAYS["straight"])
    with pytest.raises(BackendError, match="not this one"):
        opened.rank(REQUESTS[:1])
    trouble.clear()
    assert {step.chosen_by for step in opened.rank(REQUESTS[:1])[0].steps} == {"constraint"}


def test_what_is_missing_is_said(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="give tokenizer, the model's hub name or a folder"):
        OpenAIBackend("m", base_url="http://127.0.0.1:1/v1", api="completions")
    with pytest.raises(InputError, match="api is 'chats': use chat or completions"):
        OpenAIBackend("m", base_url="http://127.0.0.1:1/v1", api="chats")  # type: ignore[arg-type]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chat_only = serve(refusal(404, f"Not Found: {KEY}"))
    options = {"backend": "openai", "base_url": chat_only.base_url, "settings_from": TINY_CHECKPOINT}
    with pytest.raises(
        BackendError, match=r"has no endpoint /completions, which api='completions' goes by: use api="
    ) as caught:
        ranker("m", **options, api="completions", strategy="iterative").rank(REQUESTS)
    assert KEY not in everything_said(caught.value, caplog.text)
    with pytest.raises(InputError, match="needs a backend that can be given a thought"):
        ranker("m", **options, strategy="iterative", think="never")


def test_the_doctor_shows_what_a_server_can_do(start: Callable[..., Any]) -> None:
    options, _ = start("llama.cpp")
    told = "--quick --queries 1 --candidates 2 --max-thought-tokens 2 --backend openai --api completions".split()
    asked = ("doctor", "m", *told, "--base-url", options["base_url"], "--tokenizer", TINY_CHECKPOINT)
    assert (
        "Completions endpoint: prompts as tokens; held to the identifiers by grammar; log-probabilities: logprobs=64 "
        "and return_tokens_as_token_ids=True; so answers are chosen under a constraint"
    ) in r1ranker(*asked).output
