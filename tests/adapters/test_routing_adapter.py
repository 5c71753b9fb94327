"""`RoutingAdapter`: language models ranked for a question, with the embedded model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker_ir import LLMProfile, Ranker, RoutingAdapter
from r1ranker_ir.adapters.routing.objectives import Objective
from r1ranker_ir.errors import InputError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT

LLMS = (
    LLMProfile("alpha", 0.1, 0.1, "cheap, for short chats", "7B"),
    LLMProfile("beta", 0.9, 0.9, "proves theorems and other mathematics", "70B"),
    LLMProfile("gamma", 0.3, 0.4, "writes computer programs", "13B"),
)
QUESTION = "Prove the theorems of mathematics that these programs use"


@pytest.fixture(scope="module")
def route() -> RoutingAdapter:
    return RoutingAdapter("r1ranker-iterative-tiny", llms=LLMS, objective="balance")


def test_a_question_is_ranked_as_a_request_and_choices_are_those_of_the_ranking(route: RoutingAdapter) -> None:
    ranking = route.rank(QUESTION)
    request = ranking.request
    assert (request.query, request.task) == (QUESTION, "model")
    assert request.aim == "a good answer and a low cost, both alike"
    assert [candidate.text for candidate in request.candidates] == [llm.text for llm in LLMS]
    assert len(ranking.steps) == 2 and len(ranking.reasons) == 3
    [same] = Ranker(TINY_CHECKPOINT, strategy="iterative").rank([route.request(QUESTION)])
    assert same.order == ranking.order
    order = route.order(QUESTION)
    assert [llm.name for llm in order] == [candidate.id for candidate in ranking.best_first]
    assert set(order) == set(LLMS)
    assert route.choose(QUESTION) == order[0]
    assert route.fallbacks(QUESTION) == order[1:]
    assert route.model_for([{"role": "user", "content": QUESTION}]) == order[0].name


def test_many_questions_are_ranked_as_one_by_one(route: RoutingAdapter) -> None:
    questions = [QUESTION, "write a computer program", "hello"]
    before = route.summary.queries
    rankings = route.rank_all(questions)
    assert [ranking.order for ranking in rankings] == [route.rank(question).order for question in questions]
    assert route.summary.queries == before + 6
    assert route.rank_all([]) == []


def test_the_ranker_reads_what_is_wanted() -> None:
    for objective in ("cost", (0.2, 0.8), Objective(0.2, 0.8, "a low cost above all, then a good answer")):
        adapter = RoutingAdapter("r1ranker-direct-tiny", llms=LLMS, objective=objective)
        assert adapter.request("q").aim == "a low cost above all, then a good answer"
    assert adapter.rank("q").steps[0].outcome  # direct: one call orders all


def test_profiles_of_a_file(tmp_path: Path) -> None:
    fields = ("name", "price_in", "price_out", "description", "size")
    path = tmp_path / "llms.json"
    path.write_text(json.dumps([{name: getattr(llm, name) for name in fields} for llm in LLMS]))
    assert RoutingAdapter("r1ranker-iterative-tiny", llms=path).llms == LLMS


def test_one_language_model_needs_no_call() -> None:
    adapter = RoutingAdapter(TINY_CHECKPOINT, strategy="iterative", llms=LLMS[:1])
    assert adapter.choose(QUESTION) == LLMS[0] and adapter.fallbacks(QUESTION) == ()
    assert adapter.summary.usage.calls == 0


@pytest.mark.parametrize(
    ("llms", "said"),
    [
        ([], "llms holds no language model"),
        ([LLMS[0], replace(LLMS[1], name="alpha")], "llms holds 'alpha' more than once"),
        ([LLMS[0], "beta"], r"llms\[1\] is a text: give an LLMProfile"),
        ("nowhere.json", "'nowhere.json' does not exist"),
    ],
)
def test_language_models_that_can_not_be_used(llms: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        RoutingAdapter("r1ranker-iterative-tiny", llms=llms)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda route: RoutingAdapter("r1ranker-iterative-tiny", llms=LLMS, objective="speed"), "objective is 'speed'"),
        (lambda route: RoutingAdapter("some/model", llms=LLMS), "is not a registered name"),
        (lambda route: route.rank(3), "the question is 3: give a text"),
        (lambda route: route.choose(" "), "blank"),
        (lambda route: route.rank_all("one question"), "queries is a text"),
    ],
)
def test_arguments_that_can_not_be_used(route: RoutingAdapter, call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(route)
