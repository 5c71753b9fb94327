"""Reading identifiers from free text: whatever a model writes, a reading is in range and an order can be completed."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.answers import complete_order, read_answer

Form = Literal["one", "order"]

FORMS = st.sampled_from(["one", "order"])
FRAGMENTS = st.sampled_from(
    [
        *("<think>", "</think>", "<answer>", "</answer>", "<Answer>", "</ANSWER>", "<answer", ">", "\n", " "),
        *("[1]", "[2]", "[3]", "[ 4 ]", "[0]", "[21]", "[999999999999]", "[-1]", "[", "]", "[٣]", "[²]"),
        *("1", "2", "17", "3.5", "-2", "1e9", "２", "passage 3", "no. 2", ", ", " > ", "worst", "①", "\x00", "\ud800"),
    ]
)
OUTPUTS = st.one_of(st.lists(FRAGMENTS, max_size=20).map("".join), st.text())


@given(output=OUTPUTS, count=st.integers(1, 25), form=FORMS)
def test_a_reading_is_in_range_and_completes_to_a_permutation(output: str, count: int, form: Form) -> None:
    reading = read_answer(output, count, form)

    assert all(0 <= index < count for index in reading.indices)
    assert len(set(reading.indices)) == len(reading.indices) <= (1 if form == "one" else count)
    if reading.clean:
        assert len(reading.indices) == (1 if form == "one" else count)
    order = complete_order(reading.indices, count)
    assert sorted(order) == list(range(count))
    assert order[: len(reading.indices)] == reading.indices
    rest = order[len(reading.indices) :]
    assert list(rest) == sorted(rest)


@given(
    data=st.data(), count=st.integers(1, 25), thought=st.text(), joiner=st.sampled_from([" > ", ">", ", ", "\n", " "])
)
def test_a_well_formed_order_is_read_as_it_stands(data: st.DataObject, count: int, thought: str, joiner: str) -> None:
    order = data.draw(st.permutations(range(count)))
    answer = joiner.join(f"[{index + 1}]" for index in order)
    reading = read_answer(f"<think>{thought}</think>\n<answer>{answer}</answer>", count, "order")

    assert reading.indices == tuple(order)
    assert reading.clean


@given(count=st.integers(1, 25), thought=OUTPUTS, data=st.data())
def test_a_well_formed_exclusion_is_read_whatever_was_thought(count: int, thought: str, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, count - 1))
    reading = read_answer(f"<think>{thought}</think><answer>[{index + 1}]</answer>", count, "one")

    assert reading.indices == (index,)
    assert reading.clean


@pytest.mark.parametrize(
    ("output", "form", "indices", "clean"),
    [
        ("<think>[1]</think><answer>[3]</answer>", "one", (2,), True),
        ("[1] looks fine</think><answer>[3]</answer>", "one", (2,), True),  # the prompt opened the thought
        ("<think>x</think>[3]", "one", (2,), True),
        ("<think>x</think>The worst is [3].", "one", (2,), True),
        ("<think>x</think><answer>3</answer>", "one", (2,), True),
        ("<think>x</think><answer>[3]", "one", (2,), True),
        ("<THINK>x</THINK><ANSWER>[3]</ANSWER>", "one", (2,), True),
        ("<answer>[3]</answer>", "one", (2,), True),
        ("[3]", "one", (2,), True),
        ("<think>I say <answer>[1]</answer></think><answer>[3]</answer>", "one", (2,), True),
        ("<think>x</think><answer>[1]</answer> no: <answer>[3]</answer>", "one", (2,), True),
        ("<think>x</think><answer>Passage 12 says 7, so [3]</answer>", "one", (2,), True),
        # More than one, none, out of range, twice: a repair.
        ("<think>x</think><answer>[3] or [1]</answer>", "one", (2,), False),
        ("<think>x</think><answer>[9]</answer>", "one", (), False),
        ("<think>x</think><answer>[0]</answer>", "one", (), False),
        ("<think>x</think><answer>none</answer>", "one", (), False),
        ("<think>x</think><answer></answer>", "one", (), False),
        ("<think>x</think>", "one", (), False),
        ("", "one", (), False),
        # A thought that never ends holds no answer, however many identifiers it names.
        ("<think>[1] is bad, [2] is good", "one", (), False),
        ("<think>[1] > [2] > [3] > [4]", "order", (), False),
        ("<think>so <answer>[4]</answer>", "one", (3,), True),
        ("<think>x</think><answer>[2] > [1] > [4] > [3]</answer>", "order", (1, 0, 3, 2), True),
        ("<think>x</think><answer>2, 1, 4, 3</answer>", "order", (1, 0, 3, 2), True),
        ("<think>x</think><answer>[2] > [1]</answer>", "order", (1, 0), False),
        ("<think>x</think><answer>[2] > [2] > [1] > [4] > [3]</answer>", "order", (1, 0, 3, 2), False),
        ("<think>x</think><answer>[2] > [7] > [1] > [4] > [3]</answer>", "order", (1, 0, 3, 2), False),
        ("<think>x</think><answer>[2] > [1000000000000] > [1]</answer>", "order", (1, 0), False),
    ],
)
def test_examples(output: str, form: Form, indices: tuple[int, ...], clean: bool) -> None:
    reading = read_answer(output, 4, form)
    assert (reading.indices, reading.clean) == (indices, clean)


@pytest.mark.parametrize(
    "output",
    [
        "[1] " * 300_000,
        "9" * 1_000_000,
        "[" * 300_000,
        "[ " + " " * 300_000,
        "<answer>" * 100_000,
        "<think>" * 100_000,
        "</think>" * 100_000,
        "<answer>[" + "1" * 500_000 + "]</answer>",
        "<answer></answer>" * 50_000,
    ],
    ids=lambda output: output[:12],
)
def test_enormous_outputs_are_read(output: str) -> None:
    for form in ("one", "order"):
        reading = read_answer(output, 20, form)
        assert sorted(complete_order(reading.indices, 20)) == list(range(20))
