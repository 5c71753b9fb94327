"""Iterative elimination, driven by hand: calls, windows, order and repairs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.types import Answer, Usage

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


@given(quality=st.integers(0, 60).flatmap(lambda n: st.permutations(range(n))), sizes=SIZES)
def test_an_oracle_gives_what_brute_force_gives(
    quality: list[int], sizes: tuple[int, int], prompt: Prompt, conversation: Any
) -> None:
    window_size, stride = sizes
    program = eliminate(conversation.request(len(quality)), prompt, window_size=window_size, stride=stride)
    ranking, calls = conversation.drive(program, conversation.by_quality(quality))

    assert list(ranking.order) == brute_force(quality, window_size, stride)
    assert len(calls) == max(0, len(quality) - 1)
    if quality:
        # The best is never excluded, wherever it stood; a list of one window is sorted.
        assert quality[ranking.order[0]] == max(quality)
    if len(quality) <= window_size:
        assert [quality[position] for position in ranking.order] == sorted(quality, reverse=True)


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
