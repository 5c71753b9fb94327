"""Texts cut to a number of tokens: between words, or inside one where nearly nothing would be left otherwise.

A cut never falls inside a grapheme cluster, such as a letter with its combining marks or a joined emoji.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

import regex

LONG_WORD = 32
"""A word of more characters may be cut inside: a URL, or a phrase of a script that is not known to lack spaces."""
LONGEST_CLUSTER = 32
"""Code points after which a grapheme cluster counts as ended: a letter may carry any number of combining marks.

Unicode's stream-safe text format (UAX #15) allows 30 of them.
"""

# Scripts written without spaces count as one word a grapheme cluster, or their texts could not be cut at all: those of
# East Asia, those for which Unicode has dictionaries find the words (Thai, Lao, Khmer, Burmese and others), and more.
_UNSPACED = (
    r"\u2e80-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00016fe0-\U00018dff\U0001aff0-\U0001b2ff"
    r"\U00020000-\U0003ffff\p{Line_Break=SA}\p{Script=Tibetan}\p{Script=Balinese}\p{Script=Javanese}"
)
_HAS_UNSPACED = regex.compile(f"[{_UNSPACED}]")
# None of them comes before Thai, nor among punctuation and signs. `re` finds out ten times as fast as `regex`.
_MAY_HAVE_UNSPACED = re.compile(r"[\u0e00-\u1fff\u2e80-\U0010ffff]")
_WORDS = re.compile(r"\S+")
# `re` takes \x1c to \x1f for white space as well.
_WORDS_AND_CLUSTERS = regex.compile(rf"(?=[{_UNSPACED}])\X|(?:(?=[^\s\x1c-\x1f{_UNSPACED}])\X)+")
_CLUSTER = regex.compile(r"\X")
_SPACE = re.compile(r"\s")
# A little more than a token has in English: a beginning of that many characters per token mostly holds enough tokens.
_CHARACTERS_PER_TOKEN = 5
# How far a word is followed to its end where a beginning is taken of a long text.
_LOOK_AHEAD = 8 * LONG_WORD

Spans = Callable[[str], Sequence[tuple[int, int]] | None]
"""Where the tokens of a text begin and end in it; `None` where the tokenizer does not tell."""


def cut_at_word(text: str, max_tokens: int, count: Callable[[str], int], spans_of: Spans | None = None) -> str:
    """Cuts a text to its longest beginning of whole words that takes at most `max_tokens`, as `count` counts them.

    A word is cut inside, at the end of a grapheme cluster, where no word fits, or where the words that fit take less
    than half of `max_tokens` and the next one has more than 32 characters. In scripts without spaces (Chinese, Thai, …)
    every grapheme cluster counts as a word. A text that is not blank never becomes blank: its first grapheme cluster is
    kept whatever it takes, unless `max_tokens` is 0. With `spans_of` one beginning is tokenized instead of about eight.
    """
    if spans_of is not None and (cut := _cut_by_spans(text, max_tokens, spans_of)) is not None:
        return cut
    beginning = _too_long_beginning(text, max_tokens, count)
    if beginning is None:
        return text
    words = _words(beginning)
    fitting = bisect_right(words, max_tokens, key=lambda word: count(text[: word[1]]))
    kept = words[fitting - 1][1] if fitting else 0
    if fitting == len(words) or max_tokens < 1:
        return text[:kept]
    start, end = words[fitting]
    if kept and (end - start <= LONG_WORD or 2 * count(text[:kept]) >= max_tokens):
        return text[:kept]
    ends = [start + each for each in cluster_ends(text[start:end])]
    inside = bisect_right(ends, max_tokens, key=lambda each: count(text[:each]))
    if inside:
        return text[: ends[inside - 1]]
    return text[: kept or ends[0]]


def cluster_ends(text: str) -> list[int]:
    """Where a text's grapheme clusters end; clusters of more than 32 code points are ended there."""
    ends: list[int] = []
    for cluster in _CLUSTER.finditer(text):
        ends.extend(range(cluster.start() + LONGEST_CLUSTER, cluster.end(), LONGEST_CLUSTER))
        ends.append(cluster.end())
    return ends


def _words(text: str) -> list[tuple[int, int]]:
    """Where the words stand; in scripts without spaces, the grapheme clusters."""
    unspaced = _MAY_HAVE_UNSPACED.search(text) and _HAS_UNSPACED.search(text)
    pattern = _WORDS_AND_CLUSTERS if unspaced else _WORDS
    return [word.span() for word in pattern.finditer(text)]


def _too_long_beginning(text: str, max_tokens: int, count: Callable[[str], int]) -> str | None:
    """A beginning that takes more than `max_tokens`, not much longer than it must be; `None` if the text fits."""
    size = max(_CHARACTERS_PER_TOKEN * max_tokens, _LOOK_AHEAD)
    while size + _LOOK_AHEAD < len(text):
        space = _SPACE.search(text, size, size + _LOOK_AHEAD)
        end = space.start() if space else size + _LOOK_AHEAD
        if count(text[:end]) > max_tokens:
            return text[:end]
        size *= 4
    return text if count(text) > max_tokens else None


def _cut_by_spans(text: str, max_tokens: int, spans_of: Spans) -> str | None:
    """As `cut_at_word`; `None` unless white space stands where it would cut, and no token there crosses it.

    There, beginnings have the tokens that they have in the whole text; between Chinese characters they need not.
    """
    size = _CHARACTERS_PER_TOKEN * max_tokens
    enough = text.find(" ", size, size + _LOOK_AHEAD)
    if enough < 0 and len(text) > size + _LOOK_AHEAD:
        return None
    for beginning in (text[:enough], text) if enough >= 0 else (text,):
        spans = spans_of(beginning)
        if spans is None:
            return None
        if len(spans) > max_tokens:
            break
    else:
        return text
    words = _words(beginning)
    fitting = bisect_right(words, spans[max_tokens][0], key=lambda word: word[1])
    if not 0 < fitting < len(words) or words[fitting][1] - words[fitting][0] > LONG_WORD:
        return None
    last, too_far = words[fitting - 1][1], words[fitting][1]
    apart = all(end == len(beginning) or beginning[end].isspace() for end in (last, too_far))
    if not apart:
        return None
    for start, stop in spans:
        if start < last < stop or start < too_far < stop:
            return None
    return beginning[:last]
