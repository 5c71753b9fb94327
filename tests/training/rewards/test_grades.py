"""Rewards of grades: a list's rollouts scored together, worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.rewards.grades import LIST_REWARDS, grade_close_reward, grade_in, grade_rank_reward

DUE = [10.0, 4.0, 0.0]


def written(grade: object) -> str:
    return f"<think>\nSome thought.\n</think>\n<answer>{grade}</answer>"


def columns(places: Sequence[int], due: Sequence[float] = DUE, number: int = 0) -> dict[str, Any]:
    """What the rows of rollouts about candidates at these places hold."""
    count = len(places)
    said = {"gains": [list(due)] * count, "graded": list(places), "list": [number] * count}
    return {**said, "strategy": ["pointwise"] * count}


@pytest.mark.parametrize(
    ("output", "grade"),
    [
        *((written("[7]"), 7), (written(" 10\n"), 10), (written("[0]"), 0)),
        *(
            (written(wrong), None)
            for wrong in ("[11]", "11", "07", "7.5", "-1", "[7] of 10", "seven", "", "[[7]]", "７")
        ),
        *((f"So: {written(7)}", None), ("<answer>7</answer>", None), ("<think>7</think>", None)),
    ],
)
def test_a_grade_is_read_strictly(output: str, grade: int | None) -> None:
    assert grade_in(output) == grade


def test_a_grade_is_paid_by_the_order_that_it_leads_to() -> None:
    # Ranked together: 9 | 8 | 7 7 | 3 | 2 | 0; the worst of the positive is 3, of rank 5.
    given_grades = [9, 3, 8, 7, 7, 2, 0, "none"]
    told: dict[str, float] = {}
    found = grade_rank_reward(
        [written(grade) for grade in given_grades],
        **columns([0, 0, 1, 2, 1, 1, 2, 0]),
        log_metric=told.__setitem__,
    )
    below = [1 - (2 / 10) ** 2, 1.0]
    assert found == pytest.approx([1, 1 / 5, -1 / 2, -1 / 3, -1 / 3, *below, -2])
    assert told["rewards/grade_rank/positive"] == pytest.approx(1.2 / 8)
    assert told["rewards/grade_rank/format"] == pytest.approx(-2 / 8)


def test_a_tie_with_a_positive_is_a_wrong_rank() -> None:
    assert grade_rank_reward([written(5), written(5)], **columns([0, 2])) == [1, -1]
    assert grade_rank_reward([written(6), written(5)], **columns([0, 2])) == [1, 0.75]


def test_closeness_and_pairs_add_up() -> None:
    found = grade_close_reward([written(9), written(9), written(4), written("?")], **columns([0, 1, 2, 0]))
    # 9 for 10: a tie with the second, above the third. 9 for 4, and 4 for 0: off by 5 and 4 of 5.
    assert found == pytest.approx([1 - 1 / 25 + 0.75, 0 + 0.75, 1 - 16 / 25 + 1, -1])
    assert grade_close_reward([written(10)], **columns([0])) == [1]  # nothing to compare with


def test_lists_are_scored_apart_and_comparisons_not_at_all() -> None:
    one, other = columns([0, 2]), columns([1, 0], number=1)
    both = {name: [*one[name], *other[name]] for name in one}
    outputs = [written(grade) for grade in (5, 9, 0, 1)]
    for reward in LIST_REWARDS.values():
        apart = [*reward(outputs[:2], **one), *reward(outputs[2:], **other)]
        assert reward(outputs, **both) == apart
        mixed = {name: [values[0], None, *values[1:]] for name, values in both.items()}
        mixed["strategy"][1] = "iterative"
        assert reward([outputs[0], "x", *outputs[1:]], **mixed) == [apart[0], None, *apart[1:]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"graded": None}, "row 0 grades a candidate, and graded and list are None"),
        ({"graded": [3, 0]}, r"row 0 grades a candidate, and graded and list are \(3, 0\)"),
        ({"list": [0, None]}, r"row 1 grades a candidate, and graded and list are \(1, None\)"),
        ({"list": [0]}, "list holds 1 entries for 2 completions"),
    ],
)
def test_rows_that_do_not_know_their_list_are_refused(wrong: dict[str, Any], said: str) -> None:
    for reward in LIST_REWARDS.values():
        with pytest.raises(InputError, match=said):
            reward([written(1)] * 2, **{**columns([0, 1]), **wrong})


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([*range(11), "x"])), min_size=1, max_size=12),
    st.permutations(DUE),
)
def test_rewards_have_bounds_and_a_positive_never_loses_by_a_better_grade(
    rollouts: list[tuple[int, Any]], due: list[float]
) -> None:
    places = [place for place, _ in rollouts]
    outputs = [written(grade) for _, grade in rollouts]
    for name, (low, high) in {"grade_rank": (-2, 1), "grade_close": (-1, 2)}.items():
        assert all(low <= value <= high for value in LIST_REWARDS[name](outputs, **columns(places, due)))
    if due[places[0]] == max(due):
        before, after = (
            grade_rank_reward([written(grade), *outputs[1:]], **columns(places, due))[0]
            for grade in (rollouts[0][1], 10)
        )
        assert before is not None and after is not None and before <= after
