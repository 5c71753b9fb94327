"""Answers read as the published systems read them, against a second writing of their rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts.answers import complete_order, identifiers
from r1ranker_ir.prompts.published import answer_pattern, read_rank_r1, read_rankgpt, read_reasonrank

PATTERN = answer_pattern(r"<think>.*?</think>\s*<answer>(.*?)</answer>", "here")
PIECES = st.lists(
    st.sampled_from(
        "<think> </think> <answer> </answer> <ANSWER> [1] [2] [3] [12] 3 2 [0] [99] > A B C [A] [B] ² ③ ٣ text".split()
    )
    | st.text(max_size=4),
    max_size=14,
).map(" ".join)


@pytest.mark.parametrize(
    ("output", "index"),
    [
        ("<think>Two.</think><answer>[2]</answer>", 1),
        ("<THINK>Two.\nYes.</THINK>\n <Answer> [2]\n</ANSWER> and more", 1),
        ("before <think></think><answer>[3]</answer>", 2),
        ("<think>a</think><answer>[1]</answer><think>b</think><answer>[2]</answer>", 0),
        ("<answer>[2]</answer>", None),
        ("<think>Two.</think><answer>2</answer>", None),
        ("<think>Two.</think><answer>[2] is best</answer>", None),
        ("<think>Two.</think><answer>[4]</answer>", None),
        ("<think>Two.</think>[2]", None),
        ("", None),
    ],
)
def test_rank_r1_takes_an_identifier_and_nothing_else(output: str, index: int | None) -> None:
    reading = read_rank_r1(output, identifiers(3), PATTERN)
    assert reading.indices == (() if index is None else (index,))
    assert reading.clean == (index is not None)


@pytest.mark.parametrize(
    ("output", "indices", "clean"),
    [
        ("<think>[3]</think>\n<answer>[2] > [1] > [3]</answer>", (1, 0, 2), True),
        ("<think>[3]</think><answer>2, 1 and 3</answer>", (1, 0, 2), True),
        ("<think>[3]</think><answer>[2] > [2] > [1]</answer>", (1, 0), False),
        ("<think>[3]</think><answer>[2] > [1] > [3] > [4]</answer>", (1, 0, 2), False),
        # Without the whole form, what follows the last <answer> counts; without that, every digit of the thought does.
        ("[3] <answer>[1] <answer> [2] > [1] > [3]", (1, 0, 2), False),
        ("<think>first [3], then 1 or 2", (2, 0, 1), False),
        ("<think></think><answer>x²</answer>", (), False),
        ("", (), False),
    ],
)
def test_reasonrank_takes_digits(output: str, indices: tuple[int, ...], clean: bool) -> None:
    reading = read_reasonrank(output, 3, PATTERN)
    assert (reading.indices, reading.clean) == (indices, clean)


VALID = re.compile(r"^\[\d+\]( > \[\d+\])*$")


@pytest.mark.parametrize(
    ("output", "indices", "clean"),
    [
        ("[2] > [1] > [3]", (1, 0, 2), True),
        ("<think>[3] > [1]</think> [2] > [1] > [3]\n", (1, 0, 2), True),
        ("The order: [2] > [1] > [3]", (1, 0, 2), False),
        ("[2] > [1]", (1, 0), False),
        ("[2] > [2] > [1] > [3]", (1, 0, 2), False),
        ("[②] > [１] > [3]", (1, 0, 2), False),
        ("no order", (), False),
    ],
)
def test_rankgpt_takes_digits_and_minds_the_form(output: str, indices: tuple[int, ...], clean: bool) -> None:
    reading = read_rankgpt(output, 3, valid=VALID)
    assert (reading.indices, reading.clean) == (indices, clean)


def test_rankgpt_in_letters_reads_words_as_numbers() -> None:
    assert read_rankgpt("[B] > [A] > [C]", 3, letters=True).indices == (1, 0, 2)
    # "AA" spells 1 and 1, and that is 11: as published.
    assert read_rankgpt("AA > B", 12, letters=True).indices == (10, 1)
    assert not read_rankgpt("Order: [B] > [A] > [C]", 3, letters=True).clean


@given(output=PIECES, count=st.integers(1, 12))
def test_orders_are_what_the_published_rules_give(output: str, count: int) -> None:
    def published(text: str) -> list[int]:
        spaced = "".join(each if each.isdigit() else " " for each in text)
        try:
            found = [int(word) - 1 for word in spaced.split()]
        except ValueError:
            return list(range(count))
        once = [index for place, index in enumerate(found) if index not in found[:place] and 0 <= index < count]
        return once + [index for index in range(count) if index not in once]

    whole = re.search(r"<think>.*?</think>\s*<answer>(.*?)</answer>", output.lower(), re.DOTALL)
    said = whole[1].strip() if whole else output.split("<answer>")[-1]
    assert list(complete_order(read_reasonrank(output, count, PATTERN).indices, count)) == published(said)

    after = output.split("</think>")[-1]
    plain = after.translate(
        str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹①②③④⑤⑥⑦⑧⑨０１２３４５６７８９", "0123456789123456789" + "0123456789")
    )
    assert list(complete_order(read_rankgpt(output, count).indices, count)) == published(plain)


@given(output=PIECES | st.text(), count=st.integers(1, 26), letters=st.booleans())
def test_any_text_is_read_as_different_candidates_on_the_table(output: str, count: int, letters: bool) -> None:
    for reading in (
        read_rankgpt(output, count, letters=letters),
        read_reasonrank(output, count, PATTERN),
        read_rank_r1(output, identifiers(count), PATTERN),
    ):
        assert len(set(reading.indices)) == len(reading.indices)
        assert all(0 <= index < count for index in reading.indices)
