"""Candidate lists as the embedded model reads them, and what the thoughts that rank them say.

A thought goes through the candidates line by line. A line repeats the query's content words, each with `+` if the
passage has it, `+ +` if it has it and the word is a rare one, and `-` if not, then how many signs that makes (`=3`, at
most 9) and how early the first word stands (`@1` for the first two words, `@2` for the next two, …; `@9` for none). For
an exclusion each line ends with the worst candidate so far, its signs, its place and its identifier (`; =1 @4 [2]`),
so that every decision compares two candidates only; an ordering ends with the identifiers under falling numbers of
signs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .lexicon import STOP_WORDS

IDENTIFIERS = tuple(f"[{number}]" for number in range(1, 21))
Mode = Literal["exclude", "order"]
MAX_WALKED_WORDS = 8
# Where a place ends, in words from the passage's start: early ones are told apart more finely.
PLACE_ENDS = (2, 4, 7, 11, 16, 22, 29)
NO_PLACE = 9
MOST_SIGNS = 9


@dataclass(frozen=True)
class CandidateList:
    """A query with its passages, all as normalised words."""

    query: tuple[str, ...]
    passages: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Piece:
    """A word or mark of a completion: whether it decides something, and which part that is measured it belongs to."""

    text: str
    decides: bool = True
    part: Literal["walk", "signs", "answer"] | None = None


def walked_words(query: Sequence[str]) -> list[str]:
    """The query's distinct content words in order, at most eight: what a thought looks for."""
    return [word for word in dict.fromkeys(query) if word not in STOP_WORDS][:MAX_WALKED_WORDS]


def word_weight(word: str, common: Collection[str]) -> int:
    """How many signs a word that was found gets: two, or one for a common word."""
    return 1 if word in common else 2


def match_weight(walked: Sequence[str], passage: Sequence[str], common: Collection[str]) -> int:
    """How many signs the words that occur in the passage get, at most 9."""
    return min(MOST_SIGNS, sum(word_weight(word, common) for word in walked if word in passage))


def first_place(walked: Sequence[str], passage: Sequence[str]) -> int:
    """How early the first of the words stands: 1 (the first two words of the passage) to 8; 9 for none of them."""
    positions = [passage.index(word) for word in walked if word in passage]
    return bisect_right(PLACE_ENDS, min(positions)) + 1 if positions else NO_PLACE


def excluded_position(weights: Sequence[int], places: Sequence[int]) -> int:
    """The candidate to exclude: the least weight, among those the latest place, among those the last."""
    return max(range(len(weights)), key=lambda i: (-weights[i], places[i], i))


def falling_order(weights: Sequence[int]) -> list[int]:
    """The candidates by falling weight, ties in input order."""
    return sorted(range(len(weights)), key=lambda i: (-weights[i], i))


def completion_of(shown: CandidateList, mode: Mode, common: Collection[str]) -> Iterator[Piece]:
    """Thought and answer to a list, behind the opened thought."""
    walked = walked_words(shown.query)
    weights = [match_weight(walked, passage, common) for passage in shown.passages]
    places = [first_place(walked, passage) for passage in shown.passages]
    for number, passage in enumerate(shown.passages):
        # The first line finds the words in the query; the others only repeat it.
        walks: Literal["walk"] | None = None if number else "walk"
        yield Piece(f"[{number + 1}]")
        for word in walked:
            yield Piece(word, decides=number == 0, part=walks)
            for sign in "+" * word_weight(word, common) if word in passage else "-":
                yield Piece(sign, part="signs")
        yield Piece(f"={weights[number]}", part=walks)
        yield Piece(f"@{places[number]}")
        if mode == "exclude":
            # The candidate that would go if the list ended here.
            worst = excluded_position(weights[: number + 1], places)
            yield Piece(";", decides=False)
            yield from map(Piece, (f"={weights[worst]}", f"@{places[worst]}", f"[{worst + 1}]"))
        yield Piece("\n", decides=False)
    if mode == "order":
        # The identifiers under every number of signs that is possible, from the greatest to none.
        for weight in range(min(MOST_SIGNS, sum(word_weight(word, common) for word in walked)), -1, -1):
            yield Piece(f"={weight}")
            yield from (Piece(f"[{place + 1}]") for place, its in enumerate(weights) if its == weight)
        yield Piece("\n", decides=False)
    order = [excluded_position(weights, places)] if mode == "exclude" else falling_order(weights)
    yield Piece("</think>")
    yield from (Piece("\n", decides=False), Piece("<answer>", decides=False))
    for rank, position in enumerate(order):
        if rank:
            yield Piece(">", decides=False)
        yield Piece(f"[{position + 1}]", part="answer")
    yield Piece("</answer>", decides=False)
