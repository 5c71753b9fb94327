"""The search among identifiers: equal to scoring each of them whole, with as few questions as it takes."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker_ir.backends.choice import ChoiceSearch, Tokens, told_apart

# An end mark keeps any sequence from beginning another, as the closing bracket of an identifier does.
SEQUENCES = st.lists(st.integers(0, 4), max_size=4).map(lambda tokens: (*tokens, 9))
OPTIONS = st.lists(SEQUENCES, min_size=1, max_size=12, unique=True).map(
    lambda sequences: {f"[{number}]": sequence for number, sequence in enumerate(sequences, 1)}
)


def score(seed: int, prefix: Tokens, token: int) -> float:
    """A made-up model: any prefix gives any token some logit, the same each time."""
    digest = hashlib.sha256(repr((seed, prefix, token)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 * 12 - 6


def search(options: dict[str, Tokens], seed: int, *, exhaustive: bool) -> tuple[ChoiceSearch, list[Tokens]]:
    found = ChoiceSearch(options, exhaustive)
    asked = []
    while (prefix := found.pending) is not None:
        asked.append(prefix)
        tokens = found.branch_tokens()
        assert len(set(tokens)) == len(tokens) >= 2
        found.tell([score(seed, prefix, token) for token in tokens])
    return found, asked


def brute_force(options: dict[str, Tokens], seed: int) -> dict[str, float]:
    """Each option's probability, token by token, among the tokens that go on towards some option."""
    probabilities = {}
    for name, sequence in options.items():
        log_probability = 0.0
        for depth, token in enumerate(sequence):
            prefix = sequence[:depth]
            possible = {other[depth] for other in options.values() if other[:depth] == prefix}
            total = sum(math.exp(score(seed, prefix, other)) for other in possible)
            log_probability += score(seed, prefix, token) - math.log(total)
        probabilities[name] = math.exp(log_probability)
    return probabilities


@given(options=OPTIONS, seed=st.integers(0, 1000))
def test_an_exhaustive_search_gives_every_probability(options: dict[str, Tokens], seed: int) -> None:
    found, asked = search(options, seed, exhaustive=True)
    expected = brute_force(options, seed)

    assert list(found.probabilities) == list(options)
    assert found.probabilities == pytest.approx(expected)
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.best == max(expected, key=expected.__getitem__)
    assert len(set(asked)) == len(asked)


@given(options=OPTIONS, seed=st.integers(0, 1000))
def test_a_short_search_finds_the_likeliest_with_no_more_questions(options: dict[str, Tokens], seed: int) -> None:
    whole, all_asked = search(options, seed, exhaustive=True)
    short, asked = search(options, seed, exhaustive=False)

    assert short.best == whole.best
    assert set(asked) <= set(all_asked)
    for name, probability in short.probabilities.items():
        assert probability == pytest.approx(whole.probabilities[name])


def test_common_beginnings_are_followed_without_a_question() -> None:
    options = {"[1]": (5, 1, 9), "[10]": (5, 1, 0, 9), "[2]": (5, 2, 9)}
    found = ChoiceSearch(options, exhaustive=True)
    assert (found.pending, found.branch_tokens()) == ((5,), [1, 2])
    found.tell([math.log(3), 0.0])
    assert (found.pending, found.branch_tokens()) == ((5, 1), [9, 0])
    found.tell([0.0, 0.0])
    assert found.pending is None
    assert found.probabilities == pytest.approx({"[1]": 0.375, "[10]": 0.375, "[2]": 0.25})
    assert found.best == "[1]"


def test_a_short_search_ends_when_nothing_open_can_win() -> None:
    found = ChoiceSearch({"[1]": (1, 9), "[10]": (1, 0, 9), "[2]": (2, 9)}, exhaustive=False)
    found.tell([0.0, 1.0])
    assert (found.pending, found.best) == (None, "[2]")
    # Of equals the first; and large scores do not overflow.
    for scores in ([2.0, 2.0], [1e4, -1e4], [-1e30, -1e30], [710.0, 700.0]):
        two = ChoiceSearch({"[1]": (1,), "[2]": (2,)}, exhaustive=True)
        two.tell(scores)
        assert two.best == "[1]" and sum(two.probabilities.values()) == pytest.approx(1)
    # Nothing is asked where there is no choice.
    alone = ChoiceSearch({"[1]": (5, 6, 7)}, exhaustive=True)
    assert (alone.pending, alone.best, alone.probabilities) == (None, "[1]", {"[1]": 1.0})


def test_what_a_tokenizer_makes_the_same_of_is_left_out() -> None:
    options = {"a": (1, 2), "A": (1, 2), "ab": (1, 2, 3), "b": (1, 3), "c": (1,)}
    assert told_apart(options) == {"a": (1, 2), "b": (1, 3)}
    search = ChoiceSearch(told_apart(options), exhaustive=True)
    search.tell([0.0, 1.0])
    assert search.pending is None and search.best == "b"
