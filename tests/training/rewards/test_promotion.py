"""GR2's rewards, by hand: a copied order earns nothing, and form is paid for where the order is better."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.training.rewards.rewards import find_reward

SECOND_OF_FOUR = [0.0, 1.0, 0.0, 0.0]


def scores(output: str, gains: list[float]) -> tuple[float | None, ...]:
    """Promotion and form."""
    return tuple(find_reward(name)([output], gains=[gains])[0] for name in ("rank_promotion", "format_if_improved"))


def answered(answer: str) -> str:
    return f"<think>\na\n</think>\n<answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("answer", "gains", "promotion", "form"),
    [
        ("[2] > [1] > [3] > [4]", SECOND_OF_FOUR, 1 / 4, 1),
        ("[1] > [2] > [3] > [4]", SECOND_OF_FOUR, 0, 0),  # the prompt's order, copied
        ("[3] > [1] > [2] > [4]", SECOND_OF_FOUR, -1 / 4, 0),
        ("[1] > [2] > [3] > [4]", [2.0, 0.0, 1.0, 0.0], 0, 1),  # it can't be better
        ("[3] > [1] > [2] > [4]", [2.0, 0.0, 1.0, 0.0], -1 / 4, 1),  # as published: first in the prompt is enough
        ("[3] > [1] > [2] > [4]", [0.0, 1.0, 1.0, 0.0], 1 / 4, 1),  # of several best, the first one in each order
        ("[4] > [3] > [2] > [1]", [0.0] * 4, 0, 1),  # nothing to improve
        # What is no order of these four counts as one that puts the positive last.
        ("[2]", SECOND_OF_FOUR, -2 / 4, 0),
        ("[2] > [2] > [3] > [4]", SECOND_OF_FOUR, -2 / 4, 0),
        ("[2] > [1] > [3] > [4] > [5]", SECOND_OF_FOUR, -2 / 4, 0),
        ("", [0.0, 0.0, 0.0, 3.0], 0, 0),
        ("", [3.0, 0.0, 0.0, 0.0], -3 / 4, 0),
    ],
)
def test_what_an_order_is_worth(answer: str, gains: list[float], promotion: float, form: float) -> None:
    assert scores(answered(answer), gains) == (promotion, form)


def test_form_is_that_of_the_whole_output() -> None:
    better = answered("[2] > [1] > [3] > [4]")
    assert scores(f"{better} Done.", SECOND_OF_FOUR) == (1 / 4, 0)
    assert scores("<answer>[2] > [1] > [3] > [4]</answer>", SECOND_OF_FOUR) == (1 / 4, 0)


@given(gains=st.lists(st.integers(0, 3).map(float), min_size=2, max_size=7), data=st.data())
def test_only_an_order_that_improves_or_can_not_earns_its_form(gains: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(gains))))
    promotion, form = scores(answered(" > ".join(f"[{place + 1}]" for place in order)), gains)
    assert promotion is not None and -1 < promotion < 1
    assert form == float(promotion > 0 or gains[0] == max(gains) or max(gains) == 0)
    copied = scores(answered(" > ".join(f"[{place + 1}]" for place in range(len(gains)))), gains)
    assert copied[0] == 0
