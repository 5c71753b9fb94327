"""Rewards in units of their source's spread."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.trainers.normalisation import RewardNormaliser, RunningMoments, log_raw_rewards

ONE = torch.ones(1)


def resumed(normaliser: RewardNormaliser) -> RewardNormaliser:
    state = TrainerState()
    state.stateful_callbacks = json.loads(json.dumps({"RewardNormaliser": normaliser.state()}))
    fresh = RewardNormaliser()
    fresh.on_train_begin(None, state, TrainerControl())
    return fresh


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=50))
def test_running_moments_are_those_of_all_numbers(values: list[float]) -> None:
    moments = RunningMoments()
    moments.add(values)
    assert moments.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert moments.std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-9)


def test_rewards_are_divided_by_their_sources_deviation() -> None:
    normaliser = RewardNormaliser()
    rewards = torch.tensor([[1.0], [3.0], [0.0], [40.0]])
    # Deviations √2 and √800; shifted nowhere.
    expected = [1 / math.sqrt(2), 3 / math.sqrt(2), 0.0, 40 / math.sqrt(800)]
    found = normaliser.normalise(rewards, ONE, ["a", "a", "b", "b"])
    assert found.squeeze(1).tolist() == pytest.approx(expected)
    # 1, 3 and 5: deviation 2. The other source's rewards are not looked at.
    assert normaliser.normalise(torch.tensor([[5.0]]), ONE, ["a"]).item() == 2.5
    assert normaliser.metrics() == pytest.approx(
        {"reward_mean/a": 3.0, "reward_divisor/a": 2.0, "reward_mean/b": 20.0, "reward_divisor/b": math.sqrt(800)}
    )


def test_totals_are_weighted_and_rows_keep_their_missing_rewards() -> None:
    normaliser = RewardNormaliser()
    rewards = torch.tensor([[1.0, 2.0], [math.nan, 6.0], [math.nan, math.nan]])
    # Totals 2·1 + 0.5·2 = 3 and 3: no spread, so nothing is divided; the third row has no total.
    found = normaliser.normalise(rewards, torch.tensor([2.0, 0.5]), ["a"] * 3)
    assert torch.equal(found.nan_to_num(nan=-9.0), rewards.nan_to_num(nan=-9.0))
    assert normaliser.moments["a"].count == 2
    # Totals 3, 3 and 9: deviation √12.
    found = normaliser.normalise(torch.tensor([[4.0, 2.0]]), torch.tensor([2.0, 0.5]), ["a"])
    assert found.tolist()[0] == pytest.approx([4 / math.sqrt(12), 2 / math.sqrt(12)])


def test_small_spreads_are_not_blown_up() -> None:
    normaliser = RewardNormaliser(smallest_std=0.1)
    found = normaliser.normalise(torch.tensor([[1.0], [1.0002]]), ONE, ["a", "a"])
    assert found.squeeze(1).tolist() == pytest.approx([10.0, 10.002])
    assert RewardNormaliser().normalise(torch.tensor([[5.0]]), ONE, ["a"]).item() == 5.0
    assert RewardNormaliser().normalise(torch.tensor([[5.0], [5.0]]), ONE, ["a", "a"]).tolist() == [[5.0], [5.0]]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(-5, 5, width=32)), min_size=1, max_size=20), st.integers(0, 20)
)
def test_resumed_moments_are_the_same(rows: list[tuple[str, float]], stop: int) -> None:
    straight, cut = RewardNormaliser(), RewardNormaliser()
    for number, (source, reward) in enumerate(rows):
        if number == stop:
            cut = resumed(cut)
        rewards = torch.tensor([[reward]])
        assert torch.equal(straight.normalise(rewards, ONE, [source]), cut.normalise(rewards, ONE, [source]))
    assert straight.state() == cut.state()


def test_raw_rewards_are_logged_over_normalised_ones() -> None:
    metrics = {f"rewards/{name}/{what}": [7.0, -1.0] for name in ("one", "two") for what in ("mean", "std")} | {
        "reward": [7.0, -1.0],
        "reward_std": [7.0, -1.0],
    }
    table = {"one": deque([9.0, -1.0, -1.0], maxlen=3), "two": deque([9.0, -1.0, -1.0], maxlen=3)}
    rewards = torch.tensor([[1.0, math.nan], [3.0, math.nan]])
    log_raw_rewards(metrics, table, rewards, torch.tensor([2.0, 1.0]), ["one", "two"])
    assert {name: values[0] for name, values in metrics.items()} == dict.fromkeys(metrics, 7.0)
    assert metrics["rewards/one/mean"][1] == 2.0
    assert metrics["rewards/one/std"][1] == pytest.approx(math.sqrt(2))
    assert math.isnan(metrics["rewards/two/mean"][1])
    assert (metrics["reward"][1], metrics["reward_std"][1]) == (4.0, pytest.approx(2 * math.sqrt(2)))
    assert list(table["one"]) == [9.0, 1.0, 3.0]
    assert [value for value in table["two"] if not math.isnan(value)] == [9.0]


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="is 0"):
        RewardNormaliser(smallest_std=0)
    with pytest.raises(InputError, match="1 sources for 2 rows"):
        RewardNormaliser().normalise(torch.zeros(2, 1), ONE, ["a"])
