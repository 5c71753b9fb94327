"""Several data sets in one training."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.trainers.mixture import apportion, mix, shuffled_place


def dataset(source: str, size: int, **columns: Any) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"source": [source] * size, "id": [f"{source}{row}" for row in range(size)], **columns})


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


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 3))
def test_without_weights_every_row_comes_once(sizes: list[int], seed: int) -> None:
    mixture = mix([dataset(f"s{place}-", size) for place, size in enumerate(sizes)], seed=seed)
    assert sorted(mixture.rows["id"]) == sorted(
        f"s{place}-{row}" for place, size in enumerate(sizes) for row in range(size)
    )
    assert [(source.rows, source.repeats) for source in mixture.sources] == [(size, 0) for size in sizes]


def test_an_exhausted_data_set_is_reshuffled_repeated_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        mixture = mix([dataset("small", 10), dataset("large", 30)], [0.5, 0.5], seed=1)
    small, large = mixture.sources
    assert (small.name, small.size, small.share, small.rows, small.repeats) == ("small", 10, 0.5, 30, 20)
    assert (large.name, large.rows, large.repeats) == ("large", 30, 0)
    assert mixture.rows["source"] == ["small", "large"] * 30
    shown = mixture.rows["id"][::2]
    rounds = [shown[start : start + 10] for start in (0, 10, 20)]
    assert [sorted(own) for own in rounds] == [sorted(rounds[0])] * 3
    assert rounds[0] != rounds[1] != rounds[2]
    [message] = [record.getMessage() for record in caplog.records]
    assert message == "small is repeated: its 10 rows are shown 3.0 times each on average, for 50.0% of the mixture"


def test_a_mixture_can_stop_where_a_data_set_is_exhausted() -> None:
    mixture = mix([dataset("small", 2), dataset("large", 30)], [1, 3], exhausted="stop")
    # large, small, large, large, and again; the small one's third turn would be the tenth row.
    assert mixture.rows["source"] == (["large", "small", "large", "large"] * 3)[:9]
    assert [source.repeats for source in mixture.sources] == [0, 0]
    assert len(set(mixture.rows["id"])) == 9


def test_a_length_is_kept_to(caplog: pytest.LogCaptureFixture) -> None:
    sources = [dataset("a", 4), dataset("b", 4), dataset("c", 4)]
    mixture = mix(sources, [0.1, 0.3, 0.6], length=100)
    assert Counter(mixture.rows["source"]) == {"a": 10, "b": 30, "c": 60}
    with caplog.at_level(logging.WARNING):
        assert len(mix(sources, exhausted="stop", length=100).rows) == 12
    assert "ends after 12 of 100 rows" in caplog.text


def test_the_seed_decides_the_order() -> None:
    sources = [dataset("a", 20), dataset("b", 20)]
    orders = [mix(sources, [2, 1], seed=seed).rows["id"][:] for seed in (5, 5, 6)]
    assert orders[0] == orders[1] != orders[2]


def test_rows_of_several_sources_are_named_by_their_place() -> None:
    first = mix([dataset("a", 2), dataset("b", 2)]).rows
    assert [source.name for source in mix([first, dataset("c", 3)]).sources] == ["data set 1", "c"]


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 5))
def test_rounds_show_each_place_once(size: int, round_number: int) -> None:
    shown = [shuffled_place(size, round_number * size + turn, "seed") for turn in range(size)]
    assert sorted(shown) == list(range(size))


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([], {}, "nothing to mix"),
        ([3, 0], {}, "data set 2 is empty"),
        ([3, 3], {"weights": [1]}, "1 weights for 2"),
        ([3, 3], {"weights": [1, 0]}, "weight 0"),
        ([3, 3], {"weights": [1, float("nan")]}, "weight nan"),
        ([3, 3], {"length": 0}, "0 rows"),
        ([3, 3], {"weights": [1, 1e-9]}, "stop where the first"),
    ],
)
def test_nonsense_is_refused(sizes: list[int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mix([dataset(f"s{place}", size) for place, size in enumerate(sizes)], **options)


def test_other_columns_and_streams_are_refused() -> None:
    with pytest.raises(InputError, match="data set 2 has the columns"):
        mix([dataset("a", 2), dataset("b", 2, extra=[1, 2])])
    with pytest.raises(InputError, match="data set 1 is streamed"):
        mix([dataset("a", 2).to_iterable_dataset()])
