"""Cascades: the second ranker gets the top, and what is left of the budget."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Candidate, RankingRequest


def requests_of(counts: list[int]) -> tuple[list[RankingRequest], dict[str, dict[str, float]]]:
    requests = [
        RankingRequest(
            f"query {number}",
            tuple(Candidate(f"d{place}", f"document {place}") for place in range(count)),
            query_id=f"q{number}",
        )
        for number, count in enumerate(counts)
    ]
    gains = {}
    for number, each in enumerate(requests):
        worth = random.Random(number).sample(range(len(each.candidates)), len(each.candidates))
        gains[each.query_id] = {f"d{place}": float(gain) for place, gain in enumerate(worth)}
    return requests, gains


def oracle(strategy: str, gains: dict[str, dict[str, float]], noise: float = 0, **options: Any) -> Ranker:
    return Ranker("oracle", strategy=strategy, backend="oracle", gains=gains, noise=noise, **options)


@settings(max_examples=15)
@given(
    counts=st.lists(st.integers(0, 30), max_size=8),
    depth=st.integers(2, 12),
    batch_sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_the_top_is_ordered_by_the_second_and_the_rest_by_the_first(counts, depth, batch_sizes):
    requests, gains = requests_of(counts)
    first = oracle("direct", gains, noise=8, batch_size=batch_sizes[0])
    second = oracle("setwise", gains, top_k=depth, window_size=4, batch_size=batch_sizes[1])
    alone = first.rank(requests)
    cascade = Cascade(first, second, depth=depth)
    rankings = cascade.rank(requests)
    assert [ranking.request for ranking in rankings] == requests
    for request, before, after in zip(requests, alone, rankings, strict=True):
        worth = [gains[request.query_id][candidate.id] for candidate in request.candidates]
        top = sorted(before.order[:depth], key=lambda place: -worth[place])
        assert after.order == (*top, *before.order[depth:])
        assert after.steps[: len(before.steps)] == before.steps
        for step in after.steps[len(before.steps) :]:
            assert set(step.shown) <= set(top)
            assert step.outcome == (max(step.shown, key=worth.__getitem__),)
            assert step.probabilities is not None and set(step.probabilities) == set(step.shown)
    assert cascade.summary.queries == len(requests)
    assert second.summary.usage.calls + first.summary.usage.calls == sum(
        len(each.steps) for each in (*alone, *rankings)
    )


def test_the_second_gets_what_the_first_has_left_over():
    requests, gains = requests_of([40, 12])
    first, second = oracle("direct", gains), oracle("iterative", gains)
    rankings = Cascade(first, second, depth=10, max_calls=6).rank(requests)
    # Three windows for the first list, one for the second.
    assert [ranking.usage.calls for ranking in rankings] == [6, 6]
    assert [first.summary.usage.calls, second.summary.usage.calls] == [4, 8]
    assert all(ranking.budget_reached for ranking in rankings)
    generous = Cascade(first, second, depth=10, max_calls=100).rank(requests)
    assert not any(ranking.budget_reached for ranking in generous)
    assert [ranking.usage.calls for ranking in generous] == [3 + 9, 1 + 9]


def test_one_ranker_may_be_both():
    requests, gains = requests_of([30])
    ranker = oracle("direct", gains)
    cascade = Cascade(ranker, ranker, depth=5)
    (ranking,) = cascade.rank(requests)
    assert cascade.summary.queries == 1
    assert cascade.summary.usage.calls == len(ranking.steps) == 3


@pytest.mark.parametrize("options", [{"depth": 1}, {"max_calls": 0}, {"max_tokens": 0}])
def test_limits_that_make_no_sense_are_errors(options):
    ranker = oracle("direct", {})
    with pytest.raises(InputError, match="give at least"):
        Cascade(ranker, ranker, **options)  # type: ignore[arg-type]
