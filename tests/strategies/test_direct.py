"""Direct ordering, driven by hand: sliding windows, both ends, and repairs."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies.direct import order_directly
from r1ranker_ir.strategies.options import RankingOptions

SIZES = st.integers(2, 24).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window - 1)))


def spans(count: int, window_size: int, stride: int) -> list[tuple[int, int]]:
    """Where the windows lie: each as many places above the one before as the stride says, the last one at the top."""
    if count < 2:
        return []
    windows = 1 + max(0, math.ceil((count - window_size) / stride))
    return [(max(0, count - window_size - k * stride), count - k * stride) for k in range(windows)]


def brute_force(quality: list[int], window_size: int, stride: int) -> list[int]:
    order = list(range(len(quality)))
    for start, end in spans(len(quality), window_size, stride):
        order[start:end] = sorted(order[start:end], key=lambda position: -quality[position])
    return order


@given(quality=st.integers(0, 70).flatmap(lambda n: st.permutations(range(n))), sizes=SIZES)
def test_an_oracle_gives_what_sliding_windows_give(
    quality: list[int], sizes: tuple[int, int], prompt: Prompt, conversation: Any
) -> None:
    window_size, stride = sizes
    count = len(quality)
    program = order_directly(conversation.request(count), prompt, window_size=window_size, stride=stride)
    ranking, calls = conversation.drive(program, conversation.by_quality(quality))

    assert list(ranking.order) == brute_force(quality, window_size, stride)
    assert [len(call.identifiers) for call in calls] == [
        end - start for start, end in spans(count, window_size, stride)
    ]
    assert all(2 <= len(call.identifiers) <= window_size for call in calls)
    # Windows overlap by window_size - stride places: so many of the best come out on top, wherever they stood.
    carried = window_size if count <= window_size else window_size - stride
    best = sorted(range(count), key=lambda position: -quality[position])
    assert list(ranking.order[:carried]) == best[:carried]


def test_a_tournament_of_a_hundred_takes_eleven_calls(prompt: Prompt, conversation: Any) -> None:
    quality = [(position * 61) % 101 for position in range(100)]
    options = RankingOptions(sort="tournament")
    ranking, calls = conversation.drive(
        order_directly(conversation.request(100), prompt, options=options), conversation.by_quality(quality)
    )
    # Groups of 20; then 50 in three, 30 in two, and 20 in the end.
    assert [len(call.identifiers) for call in calls] == [*[20] * 5, 17, 17, 16, 15, 15, 20]
    assert [call.top for call in calls] == [*[10] * 10, 0]
    best = sorted(range(100), key=lambda position: -quality[position])
    assert list(ranking.order[:10]) == best[:10]
    # Dealt in turn, as teams are.
    assert conversation.shown(calls[1]) == list(range(1, 100, 5))
