"""What a thought quotes of the passages that it was shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

WORDS = 4
"""How many words in a row make a quotation."""
# Scripts without spaces between words: each sign counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_Gram = tuple[str, ...]


class Quote(NamedTuple):
    """A part of a passage, in characters, that a thought repeats word by word."""

    candidate: int
    start: int
    end: int


class Passages:
    """The passages of one query, to look for quotations in; what the query says itself is no quotation."""

    def __init__(self, query: str, texts: Mapping[int, str]) -> None:
        self._places: dict[_Gram, list[tuple[int, int, int]]] = {}
        of_query = {gram for gram, _, _ in _grams(query)}
        for candidate, text in texts.items():
            for gram, start, end in _grams(text):
                if gram not in of_query:
                    self._places.setdefault(gram, []).append((candidate, start, end))

    def quoted_by(self, thought: str, shown: Iterable[int]) -> list[Quote]:
        """The longest parts of the passages shown that the thought repeats, passage by passage."""
        among = set(shown)
        found = {
            place
            for gram in {gram for gram, _, _ in _grams(thought)}
            for place in self._places.get(gram, ())
            if place[0] in among
        }
        quotes: list[Quote] = []
        for candidate, start, end in sorted(found):
            last = quotes[-1] if quotes else None
            if last is not None and last.candidate == candidate and start <= last.end:
                quotes[-1] = Quote(candidate, last.start, max(end, last.end))
            else:
                quotes.append(Quote(candidate, start, end))
        return quotes


def _grams(text: str) -> Iterator[tuple[_Gram, int, int]]:
    words = [(match[0].casefold(), *match.span()) for match in _WORD.finditer(text)]
    for first in range(len(words) - WORDS + 1):
        run = words[first : first + WORDS]
        yield tuple(word for word, _, _ in run), run[0][1], run[-1][2]
