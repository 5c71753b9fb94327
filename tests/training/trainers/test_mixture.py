"""Several data sets in one training, and short lists before long ones."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.trainers.mixture import apportion, in_turn, mix, order_by_length


def dataset(source: str, size: int) -> Any:
    return Dataset.from_dict({"source": [source] * size, "id": [f"{source}{row}" for row in range(size)]})


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 300))
def test_every_beginning_keeps_to_the_weights(weights: list[int], picks: int) -> None:
    shown = [0] * len(weights)
    for pick, place in enumerate(itertools.islice(apportion(weights), picks), start=1):
        shown[place] += 1
        for weight, count in zip(weights, shown, strict=True):
            # |share · picks − count| < 1, in whole numbers
            assert abs(weight * pick - count * sum(weights)) < sum(weights)


def test_apportioning_by_hand() -> None:
    # Shares 3/4 and 1/4. Pick 1: only place 0 is due (3/4 ≥ 1/2 > 1/4). Pick 2: both, and both by pick 2, so the first.
    # Pick 3: place 0 has 2 of 9/4 and is not due. Pick 4: place 1 has 1 of 1 and is not.
    assert list(itertools.islice(apportion([3, 1]), 8)) == [0, 0, 1, 0, 0, 0, 1, 0]


def test_an_exhausted_data_set_is_reshuffled_repeated_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        mixture = mix([dataset("small", 10), dataset("large", 30)], [0.5, 0.5], seed=1)
    assert mixture["source"][:] == ["small", "large"] * 30
    assert len(set(mixture["id"][1::2])) == 30
    rounds = [mixture["id"][start : start + 20 : 2] for start in (0, 20, 40)]
    assert [sorted(own) for own in rounds] == [sorted(rounds[0])] * 3
    assert rounds[0] != rounds[1] != rounds[2]
    [message] = [record.getMessage() for record in caplog.records]
    assert message == "data set 1 gives 30 of 60 rows of the mixture, each of its 10 rows 3.0 times on average"


def test_a_length_is_kept_to_and_the_seed_decides_the_order() -> None:
    sources = [dataset("a", 4), dataset("b", 4), dataset("c", 4)]
    assert Counter(mix(sources, [0.1, 0.3, 0.6], length=100)["source"]) == {"a": 10, "b": 30, "c": 60}
    orders = [mix(sources, [2, 1, 1], seed=seed)["id"][:] for seed in (5, 5, 6)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ([3, 0], [1, 1], "data set 2 of the mixture is empty"),
        ([3, 3], [1], r"weights \[1\] for 2 data sets"),
        ([3, 3], [1, 0], r"weights \[1, 0\] .* positive"),
        ([3, 3], [1, float("nan")], r"weights \[1, nan\] .* positive"),
    ],
)
def test_nonsense_is_refused(sizes: list[int], weights: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mix([dataset(f"s{place}", size) for place, size in enumerate(sizes)], weights)


def test_tasks_in_turn_by_hand() -> None:
    # A quarter of the second and third stage is replay: 2 of 8 rows each. The first task's own stage has 6 - 2 - 1.
    places = in_turn([6, 6, 6], 0.25)
    assert [Counter(places[start:end]) for start, end in ((0, 3), (3, 10), (10, 18))] == [
        *({0: 3}, {0: 2, 1: 5}, {0: 1, 1: 1, 2: 6}),
    ]
    assert in_turn([2, 3], 0.0) == [0, 0, 1, 1, 1]
    with pytest.raises(
        InputError, match=r"replay is 0.9, which takes 18 rows of data set 1 .* and 2 are left: lower it"
    ):
        in_turn([2, 2], 0.9)
    with pytest.raises(InputError, match="replay is 1: give a share"):
        in_turn([2, 2], 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.floats(0, 0.3))
def test_replay_changes_nothing_but_the_order(counts: list[int], replay: float) -> None:
    try:
        places = in_turn(counts, replay)
    except InputError:
        return  # an earlier task is too small for it
    assert [places.count(place) for place in range(len(counts))] == counts
    firsts = [places.index(place) for place in range(len(counts)) if place in places]
    for place, first in enumerate(firsts):
        assert all(firsts[each] < first for each in range(place))


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(3)), st.integers(6, 60), st.sampled_from([0.0, 0.1, 0.2]))
def test_tasks_in_turn_show_the_very_rows_of_the_mixture(turns: list[int], length: int, replay: float) -> None:
    sources = [dataset("a", 9), dataset("b", 5), dataset("c", 20)]
    mixture = mix(sources, [1, 1, 1], length=length, seed=4)
    ordered = mix(sources, [1, 1, 1], length=length, seed=4, turns=turns, replay=replay)
    assert sorted(ordered["id"][:]) == sorted(mixture["id"][:])
    assert ordered["source"][0] == "abc"[turns[0]]
    assert ordered["source"][-1] == "abc"[turns[-1]] or replay


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(2, 8), min_size=1, max_size=40), st.integers(1, 100), st.integers(0, 3))
def test_short_lists_come_first_and_each_length_gets_its_share(lengths: list[int], length: int, seed: int) -> None:
    rows = Dataset.from_dict({"gains": [[0.0] * own for own in lengths], "id": list(map(str, range(len(lengths))))})
    whole = order_by_length(rows, seed=seed)
    assert sorted(whole["id"]) == sorted(rows["id"])
    assert whole["id"][:] == order_by_length(rows, seed=seed)["id"][:]
    part = order_by_length(rows, length=length, seed=seed)
    assert len(part) == length
    for shown in (whole, part):
        of_rows = [len(gains) for gains in shown["gains"]]
        assert of_rows == sorted(of_rows)
        for own, count in Counter(lengths).items():
            assert abs(of_rows.count(own) - len(shown) * count / len(lengths)) < 1
    assert max(Counter(part["id"]).values()) <= -(-length // len(lengths))
