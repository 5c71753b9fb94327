"""The oracle backend: right where it has no noise, Luce's axiom where it has, and nothing that depends on the order."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.backends.oracle import OracleBackend
from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.types import Call, Candidate, RankingRequest

FORMS = ("iterative", "direct", "setwise")


def request_of(count: int, query_id: str = "q") -> RankingRequest:
    candidates = tuple(Candidate(f"d{number}", f"document {number}") for number in range(count))
    return RankingRequest(f"what is {query_id}", candidates, query_id=query_id)


def oracle(*gains: float, **options: Any) -> OracleBackend:
    return OracleBackend(gains={"q": {f"d{number}": gain for number, gain in enumerate(gains)}}, **options)


def prompt_of(backend: OracleBackend) -> Prompt:
    return Prompt(load_template(), backend)


@given(
    gains=st.lists(st.integers(0, 3), min_size=2, max_size=30),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 3),
    drawing=st.randoms(use_true_random=False),
)
def test_without_noise_every_form_is_answered_right(
    gains: list[int], form: str, seed: int, drawing: random.Random
) -> None:
    backend = oracle(*gains, seed=seed)
    shown = drawing.sample(range(len(gains)), drawing.randint(2, len(gains)))
    call = prompt_of(backend).ask(form, request_of(len(gains)), shown)
    (answer,) = backend.answer([call])

    assert answer.choice is not None and answer.probabilities is not None
    chosen = [gains[shown[call.identifiers.index(name)]] for name in answer.choice]
    ideal = sorted((gains[position] for position in shown), reverse=form != "iterative")
    assert chosen == (ideal if form == "direct" else ideal[:1])
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    # They say the same as the answer, and say all of it.
    told = [gains[shown[call.identifiers.index(name)]] for name in call.identifiers]
    by_chance = sorted(zip(answer.probabilities.values(), told, strict=True), key=lambda pair: -pair[0])
    assert [gain for _, gain in by_chance] == ideal


def test_marked_candidates_are_not_answered_and_a_top_is_as_long_as_was_asked() -> None:
    backend = oracle(5, 1, 2, 3)
    prompt = prompt_of(backend)
    marked = prompt.ask("mark", request_of(4), [3, 1, 0, 2], [1])
    order = replace(prompt.ask("direct", request_of(4), [3, 1, 0, 2]), top=2)
    assert [answer.choice for answer in backend.answer([marked, order])] == [("[4]",), ("[3]", "[1]")]


def test_grades_are_tenths_of_the_greatest_gain() -> None:
    backend = oracle(0, 1, 2, 3, -2)
    prompt = prompt_of(backend)
    answers = backend.answer([prompt.ask("pointwise", request_of(5), (position,)) for position in range(5)])
    expected = [
        sum(int(name[1:-1]) * chance for name, chance in (answer.probabilities or {}).items()) for answer in answers
    ]
    assert expected == pytest.approx([0, 10 / 3, 20 / 3, 10, 0])
    assert [answer.choice for answer in answers] == [("[0]",), ("[3]",), ("[7]",), ("[10]",), ("[0]",)]


@pytest.mark.parametrize(("form", "sign"), [("setwise", 1), ("direct", 1), ("iterative", -1)])
def test_noisy_choices_follow_luce(form: str, sign: int) -> None:
    gains, noise, draws = (0.0, 1.0, 2.0), 1.5, 4000
    backend = oracle(*gains, noise=noise)
    call = prompt_of(backend).ask(form, request_of(3), range(3))
    answers = backend.answer([replace(call, sample=number) for number in range(draws)])

    firsts = Counter(answer.choice[0] for answer in answers if answer.choice)
    weights = [math.exp(sign * gain / noise) for gain in gains]
    for name, weight in zip(call.identifiers, weights, strict=True):
        share = weight / sum(weights)
        assert abs(firsts[name] / draws - share) < 4 * math.sqrt(share * (1 - share) / draws)
    if form == "direct":
        # Of Plackett and Luce: what is left is chosen from by the same rule.
        seconds = Counter(answer.choice[1] for answer in answers if answer.choice and answer.choice[0] == "[3]")
        share = weights[1] / (weights[0] + weights[1])
        assert abs(seconds["[2]"] / seconds.total() - share) < 4 * math.sqrt(share * (1 - share) / seconds.total())


def errors(backend: OracleBackend, count: int, calls: int = 400) -> float:
    """How often the best of a list is not seen."""
    call = prompt_of(backend).ask("setwise", request_of(100), range(count))
    answers = backend.answer([replace(call, sample=number) for number in range(calls)])
    return sum(answer.choice != ("[1]",) for answer in answers) / calls


def test_noise_may_grow_with_the_list() -> None:
    alike = oracle(30, noise=2)
    growing = oracle(30, noise=2, noise_growth=1)
    assert errors(alike, 2) == errors(growing, 2) == 0
    assert errors(alike, 50) == 0 < 0.3 < errors(growing, 50)
    assert errors(oracle(3, noise=1, noise_growth=-1), 50) < errors(oracle(3, noise=1), 50)


@settings(max_examples=20)
@given(strategy=st.sampled_from(sorted(STRATEGIES)), batch_size=st.integers(1, 9), seed=st.integers(0, 5))
def test_answers_depend_on_neither_batches_nor_order(strategy: str, batch_size: int, seed: int) -> None:
    requests = [request_of(12, f"q{number}") for number in range(6)]
    drawing = random.Random(seed)
    gains = {each.query_id: {f"d{number}": drawing.randint(0, 3) for number in range(12)} for each in requests}

    def rank(given: list[RankingRequest], seed: int, **options: int) -> dict[str, tuple[int, ...]]:
        ranker = Ranker("oracle", strategy=strategy, backend="oracle", gains=gains, noise=1, seed=seed, **options)
        return {ranking.request.query_id: ranking.order for ranking in ranker.rank(given)}

    expected = rank(requests, seed)
    assert rank(requests[::-1], seed, batch_size=batch_size) == expected != rank(requests, seed + 1)


def test_tokens_are_those_of_the_prompt_and_of_what_it_would_have_thought() -> None:
    backend = oracle(1, 2, max_thought_tokens=100)
    call = prompt_of(backend).ask("setwise", request_of(2), range(2))
    thinking, told = backend.answer([call, replace(call, thought="")])
    assert thinking.usage.prompt_tokens == told.usage.prompt_tokens == backend.count_prompt_tokens(call.messages) > 50
    assert thinking.usage.completion_tokens == told.usage.completion_tokens + 100
    assert thinking.usage.calls == 1
    assert thinking.usage.completion_tokens <= backend.answer_reserve


def test_what_it_is_not_told_is_an_error() -> None:
    backend = oracle(1, 2)
    assert "not_cacheable" in backend.identity
    with pytest.raises(InputError, match="no judgments of query 'other': leave it out"):
        backend.answer([prompt_of(backend).ask("setwise", request_of(2, "other"), range(2))])
    with pytest.raises(InputError, match="what it was rendered from"):
        backend.answer([Call((), ("[1]", "[2]"), "one")])
    for wrong in ({"noise": -1}, {"noise": math.nan}, {"batch_size": 0}, {"max_thought_tokens": -1}):
        with pytest.raises(InputError, match="give at least"):
            oracle(1, **wrong)
    with pytest.raises(InputError, match="has no option 'url': it takes gains, noise"):
        Ranker("oracle", strategy="direct", backend="oracle", gains={}, url="http")
