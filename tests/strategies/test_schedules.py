"""Schedules: how they are written, how many leave, and the joint probability of being the worst."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.errors import InputError
from r1ranker_ir.strategies.schedules import Schedule, joint_chances, parse_schedule


def steps(text: str, count: int) -> list[int]:
    """How many are left after each step of a list."""
    left, after = count, list[int]()
    while left > 1:
        left -= parse_schedule(text).leaving(left, None)
        after.append(left)
    return after


@pytest.mark.parametrize(
    "text,after",
    [
        ("one", list(range(19, 0, -1))),
        ("fixed:1", list(range(19, 0, -1))),
        ("fixed:6", [14, 8, 2, 1]),
        ("halving", [10, 5, 3, 2, 1]),
        ("halving:5", [10, 5, 4, 3, 2, 1]),
        ("halving:4", [10, 5, 4, 3, 2, 1]),
        ("halving:12", [*range(12, 0, -1)]),
        ("halving:40", list(range(19, 0, -1))),
        ("all", [1]),
    ],
)
def test_lists_of_twenty_shrink_as_the_schedule_says(text: str, after: list[int]) -> None:
    assert steps(text, 20) == after


@given(
    text=st.one_of(
        st.sampled_from(["one", "halving", "all"]),
        st.integers(1, 40).map("fixed:{}".format),
        st.integers(1, 40).map("halving:{}".format),
        st.floats(0.01, 0.99).map("confident:{:.3f}".format),
    ),
    chances=st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda values: sum(values) > 0),
)
def test_at_least_one_leaves_and_one_stays(text: str, chances: list[float]) -> None:
    schedule = parse_schedule(text)
    assert 1 <= schedule.leaving(len(chances), chances) < len(chances)
    assert parse_schedule(str(schedule)) == schedule


@pytest.mark.parametrize(
    "text",
    ["", "two", "one:1", "all:2", "fixed", "fixed:0", "fixed:1.5", "fixed:-1", "halving:0", "halving:", "confident",
     "confident:0", "confident:1", "confident:1.2.3", "fixed:2 3"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(InputError, match=r"schedule is .*(use one of one, fixed:K|whole one|between 0 and 1)"):
        parse_schedule(text)


def by_permutations(chances: list[float], count: int) -> float:
    """Luce's probability of a set by the sum over the orders in which it can be chosen."""
    total = 0.0
    for order in itertools.permutations(chances[:count]):
        probability, left = 1.0, sum(chances)
        for chance in order:
            probability, left = probability * chance / left, left - chance
        total += probability
    return total


@given(weights=st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_joint_chances_are_the_sum_over_all_orders(weights: list[float]) -> None:
    chances = [weight / sum(weights) for weight in weights]
    for count, joint in enumerate(joint_chances(chances), start=1):
        assert math.isclose(joint, by_permutations(chances, count), abs_tol=1e-8)


def test_joint_chances_stand_extremes() -> None:
    assert joint_chances([1.0]) == [1.0]
    assert joint_chances([0.0, 0.0]) == pytest.approx([0.5, 1.0])
    sure = joint_chances([0.5, 0.5 - 2e-9, 1e-9, 1e-9])
    assert sure == pytest.approx([0.5, 1.0, 0.5, 1.0], abs=1e-6)


def test_confident_takes_the_largest_set_that_passes() -> None:
    # Which of the two is worse nobody can say; that these two are the worst ones is nearly sure.
    chances = [0.5, 0.48, 0.01, 0.01]
    assert Schedule("confident", 0.9).leaving(4, chances) == 2
    assert Schedule("confident", 0.999).leaving(4, chances) == 1
    assert Schedule("confident", 0.4).leaving(4, chances) == 3
