"""Setwise sorts: the published number of calls, no question twice, prompts in a fixed random order."""

from __future__ import annotations

import random
from typing import Any

import pytest

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.options import RankingOptions, Sort
from r1ranker_ir.strategies.setwise import sort_setwise
from r1ranker_ir.types import Call, Ranking


@pytest.mark.parametrize(("children", "published", "tolerance"), [(19, 23.3, 2), (9, 31.4, 3), (3, 81.7, 4)])
def test_heap_sort_takes_as_many_calls_as_published(
    children: int, published: float, tolerance: float, prompt: Prompt, conversation: Any
) -> None:
    request = conversation.request(100)
    counts = []
    for seed in range(25):
        quality = random.Random(seed).sample(range(100), 100)
        program = sort_setwise(request, prompt, window_size=children + 1)
        ranking, calls = conversation.drive(program, conversation.by_quality(quality))
        counts.append(len(calls))
        assert [quality[position] for position in ranking.order[:10]] == list(range(99, 89, -1))
        assert list(ranking.order[10:]) == sorted(ranking.order[10:])
    assert sum(counts) / len(counts) == pytest.approx(published, abs=tolerance)


def drive(
    prompt: Prompt, conversation: Any, quality: list[int], window_size: int, **options: Any
) -> tuple[Ranking, list[Call]]:
    program = sort_setwise(
        conversation.request(len(quality)), prompt, window_size=window_size, options=RankingOptions(**options)
    )
    ranking, calls = conversation.drive(program, conversation.by_quality(quality))
    return ranking, calls


@pytest.mark.parametrize("sort", ["heap", "bubble"])
@pytest.mark.parametrize("window_size", [2, 3, 5, 20])
def test_every_size_is_sorted_whole_and_none_is_asked_twice(
    sort: Sort, window_size: int, prompt: Prompt, conversation: Any
) -> None:
    for count in range(25):
        quality = random.Random(count).sample(range(count), count)
        ranking, calls = drive(prompt, conversation, quality, window_size, sort=sort, top_k=max(1, count))
        assert [quality[position] for position in ranking.order] == sorted(quality, reverse=True)
        assert all(2 <= len(call.identifiers) <= window_size for call in calls)
        assert len({call.messages for call in calls}) == len(calls)
        assert {call.form for call in calls} <= {"one"}


def test_bubble_sort_asks_only_about_what_the_pass_before_has_changed(prompt: Prompt, conversation: Any) -> None:
    # The best ones stand in front: the first pass looks at all windows, each later one only at the top window.
    _, calls = drive(prompt, conversation, list(range(100, 0, -1)), 10, sort="bubble", top_k=5)
    assert len(calls) == 11 + 4
    # One that stands at the end is carried through all of them, and changes them all.
    ranking, calls = drive(prompt, conversation, [*range(99, 0, -1), 100], 10, sort="bubble", top_k=1)
    assert len(calls) == 11
    assert ranking.order[0] == 99


def test_candidates_are_shown_in_a_random_order_that_is_always_the_same(prompt: Prompt, conversation: Any) -> None:
    quality = random.Random(7).sample(range(40), 40)
    (first, calls), (second, again) = (drive(prompt, conversation, quality, 8) for _ in range(2))
    assert (first, calls) == (second, again)
    other, other_calls = drive(prompt, conversation, quality, 8, shuffle_seed=1)
    assert other.order == first.order and other_calls != calls
    assert [sorted(step.shown) for step in other.steps] == [sorted(step.shown) for step in first.steps]
    assert any(list(step.shown) != sorted(step.shown) for step in first.steps)

    plain, _ = drive(prompt, conversation, list(range(8, 0, -1)), 8, shuffle_seed=None)
    assert plain.steps[0].shown == tuple(range(8))
