"""Iterative elimination, driven by hand: calls, windows, order and repairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.types import Answer, Call, Usage

SIZES = st.integers(2, 24).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window - 1)))


def brute_force(quality: list[int], window_size: int, stride: int) -> list[int]:
    """Elimination on plain numbers: the candidate that is left, then those excluded, the last of them first."""
    left, excluded = list(range(len(quality))), list[int]()

    def exclude_worst(window: list[int]) -> None:
        worst = min(window, key=lambda position: quality[position])
        excluded.insert(0, worst)
        left.remove(worst)
        window.remove(worst)

    while len(left) > window_size:
        tail = left[len(left) - window_size :]
        for _ in range(stride):
            exclude_worst(tail)
    while len(left) > 1:
        exclude_worst(list(left))
    return left + excluded


def excluder(quality: list[int], shown: Callable[[Call], list[int]]) -> Callable[[Call], Answer]:
    """Answers with the truly worst of those shown."""

    def reply(call: Call) -> Answer:
        documents = shown(call)
        worst = min(documents, key=lambda document: quality[document])
        return Answer("", choice=(call.identifiers[documents.index(worst)],))

    return reply


@pytest.mark.parametrize("window_size,stride", [(20, 10), (7, 3), (2, 1), (11, 10)])
def test_every_list_of_up_to_sixty_is_ranked_with_one_call_less(
    window_size: int, stride: int, prompt: Prompt, conversation: Any
) -> None:
    for count in range(61):
        quality = [(position * 37) % 61 for position in range(count)]
        program = eliminate(conversation.request(count), prompt, window_size=window_size, stride=stride)
        ranking, calls = conversation.drive(program, excluder(quality, conversation.shown))

        assert len(calls) == len(ranking.steps) == max(0, count - 1)
        assert all(2 <= len(conversation.shown(call)) <= window_size for call in calls)
        assert list(ranking.order) == brute_force(quality, window_size, stride)
        assert ranking.repairs == 0


@given(quality=st.integers(0, 60).flatmap(lambda n: st.permutations(range(n))), sizes=SIZES)
def test_an_oracle_gives_what_brute_force_gives(
    quality: list[int], sizes: tuple[int, int], prompt: Prompt, conversation: Any
) -> None:
    window_size, stride = sizes
    program = eliminate(conversation.request(len(quality)), prompt, window_size=window_size, stride=stride)
    ranking, calls = conversation.drive(program, excluder(quality, conversation.shown))

    assert list(ranking.order) == brute_force(quality, window_size, stride)
    assert len(calls) == max(0, len(quality) - 1)
    if quality:
        # The best is never excluded, wherever it stood; a list of one window is sorted.
        assert quality[ranking.order[0]] == max(quality)
    if len(quality) <= window_size:
        assert [quality[position] for position in ranking.order] == sorted(quality, reverse=True)


def test_the_reversed_order_of_exclusion_is_the_ranking(prompt: Prompt, conversation: Any) -> None:
    answers = iter(["[2]", "[3]", "[1]", "[2]"])
    ranking, calls = conversation.drive(
        eliminate(conversation.request(5), prompt), lambda call: Answer("", choice=(next(answers),))
    )

    assert [conversation.shown(call) for call in calls] == [[0, 1, 2, 3, 4], [0, 2, 3, 4], [0, 2, 4], [2, 4]]
    assert [step.outcome for step in ranking.steps] == [(1,), (3,), (0,), (4,)]
    assert ranking.order == (2, 4, 0, 3, 1)
    assert {call.form for call in calls} == {"one"}


def test_long_lists_are_worked_from_the_tail(prompt: Prompt, conversation: Any) -> None:
    # The last shown always goes: ten from the tail, then the survivors meet the next ten.
    ranking, calls = conversation.drive(
        eliminate(conversation.request(35), prompt), lambda call: Answer("", choice=(call.identifiers[-1],))
    )

    assert conversation.shown(calls[0]) == list(range(15, 35))
    assert conversation.shown(calls[9]) == list(range(15, 26))
    assert conversation.shown(calls[10]) == list(range(5, 25))
    # Fifteen are left: the last window runs down to the winner.
    assert conversation.shown(calls[20]) == list(range(15))
    assert conversation.shown(calls[33]) == [0, 1]
    assert ranking.order == tuple(range(35))


def test_a_good_document_at_the_very_end_climbs_to_the_top(prompt: Prompt, conversation: Any) -> None:
    quality = [100 - position for position in range(99)] + [1000]
    ranking, calls = conversation.drive(
        eliminate(conversation.request(100), prompt), excluder(quality, conversation.shown)
    )
    assert ranking.order == (99, *range(99))
    assert len(calls) == 99


def test_repairs_fall_back_to_the_input_order_and_are_counted(prompt: Prompt, conversation: Any) -> None:
    outputs = iter(["no idea", "<think>x</think><answer>[1] or [2]</answer>", "<answer>[3]</answer>", "<think>[1]"])
    ranking, calls = conversation.drive(
        eliminate(conversation.request(5), prompt), lambda call: Answer(next(outputs), usage=Usage(1, 7, 3))
    )

    assert [step.outcome for step in ranking.steps] == [(4,), (0,), (3,), (2,)]
    assert [step.repaired for step in ranking.steps] == [True, True, False, True]
    assert [call.repairs_before for call in calls] == [0, 1, 2, 2]
    assert ranking.order == (1, 2, 3, 0, 4)
    assert ranking.repairs == 3
    assert ranking.usage == Usage(4, 28, 12)
