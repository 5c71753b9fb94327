"""Easy to hard: by list length, and by where rewards still differ."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.trainers.curriculum import (
    Stages,
    VarianceCurriculum,
    length_order,
    local_rows,
    order_by_length,
    stages_by_length,
)

some_lengths = st.lists(st.integers(2, 8), min_size=1, max_size=40)


def resumed(curriculum: VarianceCurriculum, stages: Stages, **options: Any) -> VarianceCurriculum:
    """A new curriculum that goes on from what a checkpoint's file holds of another one."""
    saved = json.loads(json.dumps({"VarianceCurriculum": curriculum.state()}))
    fresh = VarianceCurriculum(stages, **options)
    state = TrainerState()
    state.stateful_callbacks = saved
    fresh.on_train_begin(None, state, TrainerControl())
    return fresh


def test_stages_by_hand() -> None:
    assert stages_by_length([5, 2, 9, 2]) == Stages(("2", "5", "9"), (1, 0, 2, 0))
    assert stages_by_length([5, 2, 9, 3, 4], [4, 6]) == Stages(("2-4", "5", "9"), (1, 0, 2, 0, 0))
    # No list of 3 or 4 candidates: no stage for them.
    assert stages_by_length([2, 7], [2, 4]).names == ("2", "7")


@settings(deadline=None)
@given(some_lengths, st.integers(0, 3))
def test_rows_are_ordered_short_to_long_each_once(lengths: list[int], seed: int) -> None:
    order = length_order(stages_by_length(lengths), seed=seed)
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths)


@settings(deadline=None)
@given(some_lengths, st.integers(1, 100), st.floats(0, 0.9))
def test_a_length_is_divided_among_the_stages(lengths: list[int], length: int, revisit: float) -> None:
    order = length_order(stages_by_length(lengths), length=length, revisit=revisit)
    assert len(order) == length
    if revisit == 0:
        shown = Counter(lengths[row] for row in order)
        for own, count in Counter(lengths).items():
            assert abs(shown[own] - length * count / len(lengths)) < 1


def test_revisits_by_hand() -> None:
    stages = stages_by_length([2] * 8 + [3] * 6 + [4] * 6)
    # 6/(1 − 1/4) = 8 rows in the later stages, 2 of them from before.
    order = length_order(stages, revisit=0.25)
    assert [Counter(stages.stage_of[row] for row in part) for part in (order[:8], order[8:16])] == [
        {0: 8},
        {1: 6, 0: 2},
    ]
    assert Counter(stages.stage_of[row] for row in order[16:])[2] == 6
    assert len(order) == 24
    # 10 rows: 4, 3 and 3; a quarter of 3 is 1.
    short = length_order(stages, length=10, revisit=0.25)
    assert [stages.stage_of[row] for row in short[:4]] == [0] * 4
    assert Counter(stages.stage_of[row] for row in short[4:7]) == {1: 2, 0: 1}
    assert len(set(length_order(stages, length=20))) == 20


def test_data_sets_are_ordered_by_their_gains() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"gains": [[0.0] * length for length in (4, 2, 3, 2, 4)], "id": list("abcde")})
    ordered = order_by_length(rows.select([4, 3, 2, 1]), seed=3)
    assert [len(gains) for gains in ordered["gains"]] == [2, 2, 3, 4]
    assert sorted(ordered["id"]) == list("bcde")
    with pytest.raises(InputError, match="streamed"):
        order_by_length(rows.to_iterable_dataset())


def test_moving_average_and_weights_by_hand() -> None:
    stages = stages_by_length([2, 2, 3])
    curriculum = VarianceCurriculum(stages, floor=0.1, memory=2, warm_up=4)
    assert curriculum.weights() == (1.0, 0.0)
    curriculum.observe([0, 1], [True, False])  # 1, then 1 − 1/2
    assert curriculum.metrics() == {
        "curriculum/weight/2": 1.0,
        "curriculum/zero_variance/2": 0.5,
        "curriculum/weight/3": 0.0,
    }
    curriculum.observe([0, 1], [False, True])  # 0.25, then 0.25 + 0.75/2; the fourth group opens the next stage
    assert curriculum.metrics()["curriculum/zero_variance/2"] == 0.625
    assert curriculum.weights() == pytest.approx((0.375 / 1.375, 1 / 1.375))
    curriculum.observe([0] * 20, [True] * 20)
    assert curriculum.weights() == pytest.approx((0.1 / 1.1, 1 / 1.1))


def test_draws_follow_the_weights() -> None:
    stages = stages_by_length([2] * 50 + [3] * 50)
    curriculum = VarianceCurriculum(stages, floor=0.25, memory=1, warm_up=1)
    assert {stages.stage_of[row] for row in curriculum.draw(40)} == {0}
    curriculum.observe([0], [True])  # weights 0.25 and 1
    drawn = Counter(stages.stage_of[row] for row in curriculum.draw(4000))
    assert drawn[0] == pytest.approx(800, abs=100)  # four standard deviations of a binomial


@settings(deadline=None)
@given(some_lengths, st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 8))
def test_a_resumed_curriculum_goes_on_exactly(lengths: list[int], batches: list[int], stop: int) -> None:
    stages = stages_by_length(lengths)
    options = {"memory": 3, "warm_up": 2, "seed": 7}
    straight = VarianceCurriculum(stages, **options)  # type: ignore[arg-type]
    cut = VarianceCurriculum(stages, **options)  # type: ignore[arg-type]
    for number, groups in enumerate(batches):
        if number == stop:
            cut = resumed(cut, stages, **options)
        drawn = straight.draw(groups)
        assert cut.draw(groups) == drawn
        for curriculum in (straight, cut):
            curriculum.observe(drawn, [row % 3 == 0 for row in drawn])
    assert cut.state() == straight.state()


def test_rows_of_a_stage_come_once_a_round() -> None:
    curriculum = VarianceCurriculum(stages_by_length([2] * 6))
    drawn = [row for _ in range(4) for row in curriculum.draw(3)]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    assert drawn[:6] != drawn[6:]


@settings(deadline=None)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=8), st.integers(1, 6), st.integers(1, 4))
def test_processes_share_what_was_drawn(rows: list[int], num_generations: int, processes: int) -> None:
    rows = rows * processes  # TRL asks for as many completions on every process
    parts = [local_rows(rows, num_generations, processes, index) for index in range(processes)]
    assert len({len(part) for part in parts}) == 1
    assert [row for part in parts for row in part] == [row for row in rows for _ in range(num_generations)]


def test_a_group_may_lie_on_two_processes() -> None:
    assert [local_rows([7, 8, 9], 4, 2, index) for index in (0, 1)] == [[7, 7, 7, 7, 8, 8], [8, 8, 9, 9, 9, 9]]


def test_a_checkpoint_of_other_stages_is_refused() -> None:
    with pytest.raises(InputError, match=r"has the stages \['2', '3'\], this training \['2'\]"):
        resumed(VarianceCurriculum(stages_by_length([2, 3])), stages_by_length([2]))


def test_a_checkpoint_without_a_curriculum_starts_one() -> None:
    curriculum = VarianceCurriculum(stages_by_length([2, 3]))
    state = TrainerState()
    curriculum.on_train_begin(None, state, TrainerControl())
    # Where the trainer writes the state of its callbacks when it saves, it wants them to be known.
    assert "VarianceCurriculum" in (state.stateful_callbacks or {})
    assert curriculum.weights() == (1.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"floor": 0.0}, "floor is 0.0"), ({"memory": 0}, "memory is 0"), ({"warm_up": 0}, "warm-up 0")],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VarianceCurriculum(stages_by_length([2]), **options)


def test_nonsense_stages_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        stages_by_length([])
    with pytest.raises(InputError, match=r"\[4, 4\]"):
        stages_by_length([2, 3], [4, 4])
    with pytest.raises(InputError, match="revisit is 1"):
        length_order(stages_by_length([2, 3]), revisit=1)
    with pytest.raises(InputError, match="0 rows"):
        length_order(stages_by_length([2, 3]), length=0)
