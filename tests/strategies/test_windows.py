"""Windows: which sizes and strides make sense, and how a call is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.strategies.windows import check_window, record_step
from r1ranker_ir.types import Answer, Call, Usage


@pytest.mark.parametrize(("window_size", "stride"), [(2, 1), (3, 2), (20, 10), (20, 19), (100, 1)])
def test_windows_that_overlap_and_move(window_size: int, stride: int) -> None:
    check_window(window_size, stride)


@pytest.mark.parametrize(
    ("window_size", "stride", "message"),
    [
        (1, 1, "window_size is 1: a prompt needs at least 2"),
        (0, 1, "window_size is 0"),
        (-5, 1, "window_size is -5"),
        (2, 2, "stride is 2: give 1 to 1, less than window_size 2"),
        (20, 20, "stride is 20: give 1 to 19"),
        (20, 25, "stride is 25"),
        (20, 0, "stride is 0"),
        (20, -1, "stride is -1"),
    ],
)
@pytest.mark.parametrize("strategy", ["iterative", "direct"])
def test_other_windows_are_errors_before_any_call(
    strategy: str, window_size: int, stride: int, message: str, prompt: Prompt, conversation: Any
) -> None:
    with pytest.raises(InputError, match=message):
        STRATEGIES[strategy](conversation.request(3), prompt, window_size=window_size, stride=stride)


def test_a_step_speaks_of_positions_not_of_identifiers() -> None:
    call = Call((), ("[1]", "[2]", "[3]"), "one", cut_passages=2)
    answer = Answer(
        "<think>\nx</think>\n<answer>[2]</answer>",
        thought="x",
        choice=("[2]",),
        probabilities={"[1]": 0.2, "[2]": 0.5, "[3]": 0.3},
        thought_closed=True,
        usage=Usage(1, 10, 5),
    )
    step = record_step(call, answer, [7, 0, 4], [0], repaired=True)

    assert (step.shown, step.outcome) == ((7, 0, 4), (0,))
    assert step.probabilities == {7: 0.2, 0: 0.5, 4: 0.3}
    assert (step.thought, step.text, step.usage) == ("x", answer.text, Usage(1, 10, 5))
    assert (step.repaired, step.thought_closed, step.cut_passages) == (True, True, 2)
    assert record_step(call, Answer("[2]"), [7, 0, 4], [0], repaired=False).probabilities is None
