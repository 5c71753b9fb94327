"""How likely each identifier was, by the log-probabilities that a chat server gives of the tokens it wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What can't be told apart, or lies beyond the alternatives given, may be so much of all at one place.
_MOST_UNKNOWN = 0.01


@dataclass(frozen=True)
class WrittenToken:
    """A token of a reply, and how likely the server says that it and others were at its place."""

    text: str
    chances: Mapping[str, float]


def read_tokens(logprobs: Any) -> tuple[WrittenToken, ...]:
    """Reads what stands in a choice's field `logprobs`; nothing where it is not in the form of a chat completion."""
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(listed, list):
        return ()
    tokens: list[WrittenToken] = []
    for each in listed:
        own = _pair(each)
        if own is None:
            return ()
        others = each.get("top_logprobs")
        pairs = [pair for other in (others if isinstance(others, list) else []) if (pair := _pair(other)) is not None]
        tokens.append(WrittenToken(own[0], {own[0]: own[1], **dict(pairs)}))
    return tuple(tokens)


def _pair(value: Any) -> tuple[str, float] | None:
    if not isinstance(value, dict):
        return None
    token, score = value.get("token"), value.get("logprob")
    if not isinstance(token, str) or not isinstance(score, int | float) or isinstance(score, bool) or not score <= 1e-3:
        return None
    return token, math.exp(min(float(score), 0.0))


def chances_of(tokens: Sequence[WrittenToken], begin: int, identifiers: Sequence[str]) -> dict[str, float] | None:
    """The probability of each identifier, where the text goes on at `begin` with one of them; they sum to 1.

    At each place the tokens are compared that lead to an identifier, as on the `transformers` backend. `None` where one
    token leads to several, and which of these is meant can't be told.
    """
    left = dict(zip(identifiers, identifiers, strict=True))
    found = dict.fromkeys(identifiers, 0.0)
    place, lead = _token_at(tokens, begin)
    share = 1.0
    while len(left) > 1:
        if place >= len(tokens):
            return None
        token = tokens[place]
        before, written = token.text[:lead], token.text[lead:]
        ways = {text[lead:]: chance for text, chance in token.chances.items() if text[:lead] == before}
        leads_to = {name: _longest(ways, rest, written) for name, rest in left.items()}
        groups: dict[str, list[str]] = {}
        for name, way in leads_to.items():
            if way:
                groups.setdefault(way, []).append(name)
        together = sum(ways[way] for way in groups)
        if written not in groups or together <= 0:
            return None
        for way, names in groups.items():
            part = ways[way] / together
            if way == written:
                continue
            if len(names) == 1:
                found[names[0]] = share * part
            elif share * part > _MOST_UNKNOWN:
                return None
        share *= ways[written] / together
        left = {name: left[name][len(written) :] for name in groups[written]}
        place, lead = place + 1, 0
    found[next(iter(left))] = share
    total = sum(found.values())
    return {name: chance / total for name, chance in found.items()} if total > 0 else None


def _token_at(tokens: Sequence[WrittenToken], begin: int) -> tuple[int, int]:
    """The token in which a place of the text lies, and where in it."""
    for number, token in enumerate(tokens):
        if begin < len(token.text):
            return number, begin
        begin -= len(token.text)
    return len(tokens), 0


def _longest(ways: Mapping[str, float], rest: str, written: str) -> str:
    """The longest of the token texts that begin with what is left of an identifier, or are its beginning.

    Of equals it is the one that was written.
    """
    fitting = [
        way for way in ways if way and (rest.startswith(way) or (way.startswith(rest) and not way[len(rest)].isalnum()))
    ]
    return max(fitting, key=lambda way: (min(len(way), len(rest)), way == written), default="")
