"""Normal forms and sets of strings, in a time that grows no faster than the text."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.prompts import normal_forms
from r1ranker_ir.prompts.neutral import Neutraliser, any_of
from r1ranker_ir.prompts.normal_forms import normalize

# Marks of many classes; some are composed of others, or have no class until they are decomposed.
MARKS = (
    "\u0301\u0316\u0327\u0345\u0344\u0f73\u0f75\u0f81\u0f71\uff9e\u3099\u05b0\u064b\u0e38\u0f39\u1dfa\U0001d165\u20d0"
)
LETTERS = "aé\u1e9b\u01d5가ᄀ\u1161が\u0958①ﷺ\u00a8\ufb1dᾳ"


def marked_texts(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    runs = st.tuples(st.sampled_from(LETTERS), st.text(st.sampled_from(MARKS), min_size=1, max_size=4), sizes)
    return st.lists(runs.map(lambda run: run[0] + run[1] * run[2]), max_size=5).map("".join)


@given(text=st.one_of(st.text(), marked_texts(st.integers(0, 60)), st.text(st.sampled_from(MARKS + "a"), max_size=200)))
def test_normal_forms_are_those_of_unicodedata(text: str) -> None:
    for form in ("NFKC", "NFKD"):
        assert normalize(form, text) == unicodedata.normalize(form, text)


def out_of_order(text: str) -> int:
    """The longest run of marks that holds two in the wrong order."""
    classes = [list(map(unicodedata.combining, run)) for run in re.findall(f"[{MARKS}]+", text)]
    return max((len(run) for run in classes if any(one > other > 0 for one, other in pairwise(run))), default=0)


@pytest.mark.parametrize(
    "text",
    ["a" + "\u0301\u0316" * 20_000, "\u0316\u0301" * 9_000 + "é" + "\u0344\u0316" * 9_000, "\u0301\u0f71" * 9_000],
)
def test_unicodedata_never_sorts_a_long_run_of_marks(text: str) -> None:
    seen = []
    real = unicodedata.normalize

    def watched(form: Any, given: str) -> str:
        seen.append(given)
        return real(form, given)

    neutral = Neutraliser(["<|im_end|>"])
    with mock.patch.object(normal_forms.unicodedata, "normalize", watched):
        neutral(text)
    assert out_of_order(text) > 9_000
    assert seen and max(map(out_of_order, seen)) < 64
    # It sees each character a few times at most: alone, and with the text.
    assert sum(map(len, seen)) < 5 * len(text)


HOSTILE = {
    "white space that appears": "<" + " \u200b" * 20_000,
    "nested tags": "<think" * 5_000 + ">" * 5_000,
    "disguised tags": "＜think＞" * 5_000,
    "nested control tokens": "<|im_" * 5_000 + "<|im_end|>" + "end|>" * 5_000,
    "control tokens end to end": "<|im_end|>" * 5_000,
    "brackets": "[1" * 5_000,
    "one long word": "x" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_read_a_few_times_at_most(name: str) -> None:
    neutral = Neutraliser([*(f"<unused{number}>" for number in range(3000)), "<|im_end|>", "<|im_start|>"])
    passes = []

    plain = neutral._plain

    def watched(text: str) -> str:
        passes.append(text)
        return plain(text)

    with mock.patch.object(neutral, "_plain", watched):
        once = neutral(HOSTILE[name])
    assert len(passes) <= 3
    assert neutral(once) == once


TOKENS = st.lists(st.text(st.sampled_from("<|ab>."), min_size=1, max_size=5), min_size=1, max_size=12)


@given(tokens=TOKENS, text=st.text(st.sampled_from("<|ab>. "), max_size=40))
def test_the_longest_of_several_strings_is_matched(tokens: list[str], text: str) -> None:
    longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    assert re.findall(any_of(tokens), text) == re.findall(longest_first, text)


def test_runs_of_many_lengths_are_a_pattern_too() -> None:
    tokens = ["▁" * length for length in range(1, 300)]
    assert re.findall(any_of(tokens), "▁" * 400) == ["▁" * 299, "▁" * 101]
