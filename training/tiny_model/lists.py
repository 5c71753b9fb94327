"""Generated candidate lists with the thought that ranks them: what the embedded model learns from.

A thought goes through the candidates line by line. A line repeats the query's content words, each with `+` if the
passage has it, `+ +` if it has it and the word is a rare one, and `-` if not, then how many signs that makes (`=3`, at
most 9) and how early the first word stands (`@1` for the first two words, `@2` for the next two, …; `@9` for none). For
an exclusion each line ends with the worst candidate so far, its signs, its place and its identifier (`; =1 @4 [2]`),
so that every decision compares two candidates only; an ordering ends with the identifiers under falling numbers of
signs.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .lexicon import STOP_WORDS, Lexicon

MAX_WALKED_WORDS = 8
# Where a place ends, in words from the passage's start: early ones are told apart more finely.
PLACE_ENDS = (2, 4, 7, 11, 16, 22, 29)
NO_PLACE = 9
MOST_SIGNS = 9
_STOPS = tuple(sorted(STOP_WORDS))


@dataclass(frozen=True)
class Shape:
    """How large a generated list is; each pair is the least and the greatest."""

    candidates: tuple[int, int]
    words: tuple[int, int]
    query_words: tuple[int, int]
    stop_words: tuple[int, ...] = (0, 0, 1, 2, 3, 4, 5)


@dataclass(frozen=True)
class CandidateList:
    """A generated query with its passages, all as normalised words."""

    query: tuple[str, ...]
    passages: tuple[tuple[str, ...], ...]


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


def _pseudo_word(rng: random.Random, vocabulary: Sequence[str]) -> str:
    """A word that nobody has seen: the beginning of one and the end of another."""
    start, end = rng.choice(vocabulary), rng.choice(vocabulary)
    return (start[: rng.randint(2, 5)] + end[-rng.randint(2, 5) :])[:12]


def _content_word(rng: random.Random, vocabulary: Sequence[str]) -> str:
    if rng.random() < 0.55:
        return _pseudo_word(rng, vocabulary)
    # Squaring favours the front of the list, where the frequent words are.
    return vocabulary[int(len(vocabulary) * rng.random() ** 2)]


def _query(rng: random.Random, content: Sequence[str], stop_words: Sequence[int]) -> tuple[str, ...]:
    words = list(content)
    for _ in range(rng.choice(stop_words)):
        words.insert(rng.randint(0, len(words)), rng.choice(_STOPS))
    if rng.random() < 0.05 and content:
        words.insert(rng.randint(0, len(words)), rng.choice(list(content)))
    return tuple(words) or (rng.choice(_STOPS),)


def _near_miss(rng: random.Random, word: str, vocabulary: Sequence[str]) -> str:
    other = rng.choice(vocabulary)
    return rng.choice((word + other[-2:], word[:-1] or word + "x", word[: max(2, len(word) // 2)] + other[-3:]))


def _filler(rng: random.Random, lexicon: Lexicon, length: int) -> list[str]:
    if rng.random() < 0.4:
        start = rng.randrange(len(lexicon.prose) - length)
        return list(lexicon.prose[start : start + length])
    return [
        rng.choice(_STOPS) if rng.random() < 0.35 else _content_word(rng, lexicon.vocabulary) for _ in range(length)
    ]


def generate_list(rng: random.Random, shape: Shape, lexicon: Lexicon) -> CandidateList:
    """Writes one query and its passages."""
    wanted = 0 if rng.random() < 0.01 else rng.randint(*shape.query_words)
    content = list(dict.fromkeys(_content_word(rng, lexicon.vocabulary) for _ in range(wanted)))
    content = [word for word in content if word not in STOP_WORDS]
    query = _query(rng, content, shape.stop_words)
    passages = []
    base_rate = rng.random()
    for _ in range(rng.randint(*shape.candidates)):
        passage = _filler(rng, lexicon, rng.randint(*shape.words))
        rate = rng.random() if rng.random() < 0.6 else base_rate
        for word in content:
            if rng.random() < rate:
                for _ in range(rng.choice((1, 1, 1, 2, 3))):
                    passage[rng.randrange(len(passage))] = word
            elif rng.random() < 0.25:
                passage[rng.randrange(len(passage))] = _near_miss(rng, word, lexicon.vocabulary)
        if rng.random() < 0.15 and len(content) > 1:
            start = rng.randrange(len(passage))
            passage[start : start + len(content)] = content[: len(passage) - start]
        if rng.random() < 0.02:
            passage = []
        passages.append(tuple(passage))
    return CandidateList(query, tuple(passages))


def excluded_position(weights: Sequence[int], places: Sequence[int]) -> int:
    """The candidate to exclude: the least weight, among those the latest place, among those the last."""
    return max(range(len(weights)), key=lambda i: (-weights[i], places[i], i))


def falling_order(weights: Sequence[int]) -> list[int]:
    """The candidates by falling weight, ties in input order."""
    return sorted(range(len(weights)), key=lambda i: (-weights[i], i))
