"""Records to samples: which candidates are shown, where the positive stands, and what the draws depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.records import Sample, judged
from r1ranker_ir.training.data.samples import (
    NO_NEGATIVE,
    NO_POSITIVE,
    NO_WINDOW,
    Sampling,
    count_windows,
    lists_of,
    record_rng,
    samples_of,
    window_samples,
)
from r1ranker_ir.types import Candidate


def record_of(*gains: float, id: str = "q", source: str = "s") -> JudgedRequest:
    """A record whose candidates are called c0, c1, …"""
    candidates = tuple(Candidate(f"c{place}", f"text {place}") for place in range(len(gains)))
    return judged("what is it", candidates, tuple(map(float, gains)), id=id, source=source)


def samples(record: JudgedRequest, **options: Any) -> list[Sample]:
    return samples_of(record, Sampling(**options), Counter())


def ids(sample: Sample | JudgedRequest) -> list[str]:
    record = sample.record if isinstance(sample, Sample) else sample
    return [candidate.id for candidate in record.request.candidates]


def place_of_best(sample: Sample) -> int:
    return sample.record.gains.index(max(sample.record.gains))


gains_lists = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]), min_size=0, max_size=14)
samplings = st.builds(
    Sampling,
    strategy=st.sampled_from(["iterative", "direct", "setwise", "windows"]),
    candidates=st.integers(2, 12),
    negatives=st.sampled_from(["top", "random"]),
    positives=st.none() | st.integers(1, 3),
    min_gain=st.sampled_from([0.0, 2.0]),
    window_size=st.just(4),
    stride=st.integers(1, 3),
    seed=st.integers(0, 5),
)


@given(gains=gains_lists, sampling=samplings, id=st.text(max_size=3))
def test_every_sample_can_be_learned_from(gains: list[float], sampling: Sampling, id: str) -> None:
    record = record_of(*gains, id=id)
    gain_of = dict(zip(ids(record), record.gains, strict=True))
    dropped: Counter[str] = Counter()
    made = samples_of(record, sampling, dropped)
    assert bool(made) != bool(dropped)
    assert sum(dropped.values()) <= 1
    for sample in made:
        shown = ids(sample)
        assert 2 <= len(shown) == len(set(shown))
        assert len(set(sample.record.gains)) > 1
        assert [gain_of[name] for name in shown] == list(sample.record.gains)
        request = sample.record.request
        assert (request.query, request.query_id, sample.record.source) == (record.request.query, id, "s")
        if sampling.strategy != "windows":
            best = max(sample.record.gains)
            assert len(shown) <= sampling.candidates
            assert sample.record.gains.count(best) == 1
            assert best >= sampling.min_gain
    assert samples_of(record, sampling, Counter()) == made


@given(count=st.integers(1, 9), positives=st.integers(1, 3), seed=st.integers(0, 9))
def test_steps_have_one_sample_a_length_and_draw_their_negatives_from_the_list(
    count: int, positives: int, seed: int
) -> None:
    record = record_of(*[1.0] * positives, *[0.0] * count)
    made = samples(record, candidates=count + 1, seed=seed)
    assert len(made) == positives * count
    for start in range(0, len(made), count):
        steps = made[start : start + count]
        assert [len(step.record.request.candidates) for step in steps] == list(range(2, count + 2))
        assert {step.strategy for step in steps} == {"iterative"}
        assert len({ids(step)[place_of_best(step)] for step in steps}) == 1
    assert {ids(step)[place_of_best(step)] for step in made} == set(ids(record)[:positives])


def test_the_positive_stands_in_every_place_equally_often() -> None:
    places: dict[str, Counter[int]] = {"iterative": Counter(), "direct": Counter(), "setwise": Counter()}
    for strategy, counter in places.items():
        for number in range(1200):
            sample = samples(record_of(1, 0, 0, 0, id=str(number)), candidates=4, strategy=strategy)[-1]
            assert len(sample.record.request.candidates) == 4
            counter[place_of_best(sample)] += 1
    # 300 expected, standard deviation 15: a fair draw leaves ±75 once in millions.
    assert all(225 < counter[place] < 375 for counter in places.values() for place in range(4))


def test_negatives_of_short_steps_are_all_drawn_and_top_ones_are_those_of_the_first_stage() -> None:
    made = (samples(record_of(1, 0, 0, 0, 0, id=str(number)), candidates=5)[0] for number in range(400))
    shown = Counter(name for sample in made for name in ids(sample))
    assert shown["c0"] == 400
    assert all(60 < shown[name] < 140 for name in ("c1", "c2", "c3", "c4"))  # 100 expected, standard deviation 8.7
    record, options = record_of(0, 0, 1, 0, 0, 0), {"strategy": "direct", "candidates": 4}
    [direct] = samples(record, **options)
    assert sorted(ids(direct)) == ["c0", "c1", "c2", "c3"]
    drawn = (samples(record, **options, negatives="random", seed=seed)[0] for seed in range(60))
    assert len({tuple(sorted(ids(each))) for each in drawn}) == 10  # any 3 of the 5 negatives


def test_negatives_of_a_positive_have_a_lower_gain_and_keep_it() -> None:
    record = record_of(1, 3, 0, 3, 2)
    lists = list(lists_of(record, Sampling(candidates=5), record_rng(0, record)))
    assert [(ids(each), each.gains) for each in lists[:2]] in (
        [(["c1", "c0", "c2", "c4"], (3, 1, 0, 2)), (["c3", "c0", "c2", "c4"], (3, 1, 0, 2))],
        [(["c3", "c0", "c2", "c4"], (3, 1, 0, 2)), (["c1", "c0", "c2", "c4"], (3, 1, 0, 2))],
    )
    assert [(ids(each), each.gains) for each in lists[2:]] == [(["c4", "c0", "c2"], (2, 1, 0)), (["c0", "c2"], (1, 0))]


def test_positives_are_limited_from_the_best_down_and_drawn_among_equals() -> None:
    record = record_of(1, 2, 2, 0)
    drawn = [samples(record, strategy="setwise", positives=1, seed=seed) for seed in range(40)]
    assert {ids(each)[place_of_best(each)] for [each] in drawn} == {"c1", "c2"}
    for options, count in (({"positives": 2}, 2), ({}, 3), ({"min_gain": 2.0}, 2)):
        assert len(samples(record, strategy="setwise", **options)) == count
    # Lists are shorter where negatives are lacking.
    assert [len(sample.record.request.candidates) for sample in samples(record_of(0, 1, 0), candidates=10)] == [2, 3]


@pytest.mark.parametrize(
    ("gains", "options", "reason"),
    [
        ((), {}, NO_POSITIVE),
        ((0, 0), {}, NO_POSITIVE),
        ((1, 0), {"min_gain": 2.0}, NO_POSITIVE),
        ((0, 0), {"strategy": "windows"}, NO_POSITIVE),
        ((0, 0), {"as_given": True}, NO_POSITIVE),
        ((1,), {}, NO_NEGATIVE),
        ((2, 2), {"strategy": "direct"}, NO_NEGATIVE),
        ((1, 1), {"as_given": True}, NO_NEGATIVE),
        ((1, 1, 1), {"strategy": "windows"}, NO_WINDOW),
    ],
)
def test_why_nothing_is_made_of_a_record_is_counted(gains: Any, options: Any, reason: str) -> None:
    dropped: Counter[str] = Counter()
    assert samples_of(record_of(*gains), Sampling(**options), dropped) == []
    assert dropped == {reason: 1}


def test_draws_depend_on_seed_source_and_id_alone() -> None:
    record = record_of(1, 0, 0, 0, 0, 0, 0)
    made = [ids(step) for step in samples(record, candidates=7)]
    assert made != [ids(step) for step in samples(record, candidates=7, seed=1)]
    for name in ({"id": "q2"}, {"source": "s2"}):
        assert made != [ids(step) for step in samples(record_of(*record.gains, **name), candidates=7)]
    reworded = replace(record, request=replace(record.request, query="another"))
    assert [ids(step) for step in samples(reworded, candidates=7)] == made
    # "a" of "bc" is not "ab" of "c"
    keys = [record_of(1, 0, source="a", id="bc"), record_of(1, 0, source="ab", id="c")]
    assert record_rng(0, keys[0]).random() != record_rng(0, keys[1]).random()


def test_draws_are_those_of_today() -> None:
    """Files that were made with a seed can be made again: a change of these draws has to be meant."""
    made = samples(record_of(0, 1, 0, 0), candidates=4)
    assert [ids(sample) for sample in made] == [["c2", "c1"], ["c2", "c3", "c1"], ["c1", "c0", "c3", "c2"]]


def test_records_taken_as_given_keep_their_order() -> None:
    record = record_of(0, 2, 0, 1)
    for strategy in ("iterative", "direct", "setwise"):
        assert samples(record, strategy=strategy, as_given=True, candidates=2) == [Sample(strategy, record)]


def test_windows_slide_from_the_back_in_first_stage_order() -> None:
    # 7 candidates, windows of 4 by 2: places 3-6, 1-4, 0-2
    record = record_of(0, 0, 0, 0, 1, 0, 0)
    made = window_samples(record, 4, 2)
    assert [ids(sample) for sample in made] == [["c3", "c4", "c5", "c6"], ["c1", "c2", "c3", "c4"]]
    assert {sample.strategy for sample in made} == {"direct"}
    assert count_windows(record, 4, 2) == 3
    assert [ids(sample) for sample in window_samples(record_of(1, 0, 0, 0, 0, 0, 0), 4, 2)] == [["c0", "c1", "c2"]]


@given(count=st.integers(0, 40), window_size=st.integers(2, 12), data=st.data())
def test_windows_cover_the_list_as_the_direct_strategy_does(
    count: int, window_size: int, data: st.DataObject, conversation: Any, prompt: Any
) -> None:
    from r1ranker_ir.strategies.direct import order_directly
    from r1ranker_ir.types import Answer

    stride = data.draw(st.integers(1, window_size - 1))
    record = record_of(*range(count))  # all gains differ, so no window is dropped
    made = window_samples(record, window_size, stride)
    request = conversation.request(count)
    _, calls = conversation.drive(
        order_directly(request, prompt, window_size=window_size, stride=stride),
        lambda call: Answer("", choice=call.identifiers),
    )
    assert [ids(sample) for sample in made] == [[f"c{place}" for place in conversation.shown(call)] for call in calls]
    assert count_windows(record, window_size, stride) == len(made)
    assert all(int(a[1:]) + 1 == int(b[1:]) for sample in made for a, b in pairwise(ids(sample)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window_size": 5, "stride": 5}, "stride is 5"),
        ({"strategy": "windows", "as_given": True}, "as_given goes with"),
    ],
)
def test_senseless_settings_are_refused(options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Sampling(**options)
