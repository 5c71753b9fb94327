"""Generated candidate lists: what the embedded model learns from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from r1ranker_ir.training.demo.lexicon import STOP_WORDS, Lexicon
from r1ranker_ir.training.demo.lists import CandidateList

_STOPS = tuple(sorted(STOP_WORDS))


@dataclass(frozen=True)
class Shape:
    """How large a generated list is; each pair is the least and the greatest."""

    candidates: tuple[int, int]
    words: tuple[int, int]
    query_words: tuple[int, int]
    stop_words: tuple[int, ...] = (0, 0, 1, 2, 3, 4, 5)


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
