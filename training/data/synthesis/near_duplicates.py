"""Texts that nearly repeat others: most of their words in common, whatever the order."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from r1ranker_ir.thoughts.choosing import NEAR, words_of


class NearTexts:
    """Texts to compare others with; `least` is the share of common words (Jaccard) from which on two are near.

    A text is compared only with those that share one of its first words in a fixed order, long ones first: sets that
    are near enough share one of their first n - ceil(least · n) + 1 words (prefix filtering: Chaudhuri, Ganti and
    Kaushik, 2006).
    """

    def __init__(self, texts: Iterable[str] = (), least: float = NEAR) -> None:
        self._least = least
        self._sets: list[frozenset[str]] = []
        self._with_word: defaultdict[str, list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Adds a text."""
        words = _words(text)
        for word in self._first(words):
            self._with_word[word].append(len(self._sets))
        self._sets.append(words)

    def holds(self, text: str) -> bool:
        """Whether a text is near to one of these."""
        words = _words(text)
        places = {place for word in self._first(words) for place in self._with_word.get(word, ())}
        others = (self._sets[place] for place in places)
        return any(len(words & other) >= self._least * len(words | other) for other in others)

    def is_new(self, text: str) -> bool:
        """Adds a text that is not near to any before it, and says whether it did."""
        new = not self.holds(text)
        if new:
            self.add(text)
        return new

    def _first(self, words: frozenset[str]) -> list[str]:
        count = len(words) - math.ceil(self._least * len(words)) + 1
        return sorted(words, key=lambda word: (-len(word), word))[:count]


def _words(text: str) -> frozenset[str]:
    return frozenset(words_of(text)) or frozenset([text.strip()])
