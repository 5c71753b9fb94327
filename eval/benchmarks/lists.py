"""Made-up lists of exactly so many passages of exactly so many tokens, and the order in which they are to go."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, Protocol

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Call, Candidate, RankingRequest

Order = Literal["first-stage", "random"]
_NUMBER = re.compile(r"\bnumber (\d+):")
_QUERY_WORDS = 8
_SHORT_WORDS = "a of is to in and the as it on no . , x"
_SHORTEST = 8


class Counts(Protocol):
    """How a model counts tokens; every backend does."""

    def count_tokens(self, text: str) -> int: ...

    def cut_text(self, text: str, max_tokens: int) -> str: ...


@dataclass(frozen=True)
class MadeLists:
    """Requests without meaning, and how they are to be ranked.

    Every passage begins with a number of its own, by which it is known wherever a prompt shows it.
    """

    requests: tuple[RankingRequest, ...]  # one a query, in first-stage order
    going: dict[int, int]  # for each passage's number when it goes: the greater, the later
    best_first: tuple[tuple[int, ...], ...]  # positions of each request's candidates as going orders them

    def shown(self, call: Call) -> list[int]:
        """The numbers of the passages that a call's prompt shows, in its order."""
        return [int(number) for message in call.messages for number in _NUMBER.findall(message.content)]


def make_lists(
    counts: Counts, *, queries: int, candidates: int, passage_tokens: int, order: Order, seed: int
) -> MadeLists:
    """Makes lists."""
    drawing = random.Random(seed)
    requests, best_first = [], []
    going: dict[int, int] = {}
    for query in range(queries):
        numbers = range(query * candidates + 1, (query + 1) * candidates + 1)
        texts = [made_passage(counts, number, passage_tokens, drawing) for number in numbers]
        passages = tuple(Candidate(str(number), text) for number, text in zip(numbers, texts, strict=True))
        asked = " ".join(drawing.choices(_words(), k=_QUERY_WORDS))
        requests.append(RankingRequest(asked, passages, query_id=f"q{query + 1}"))
        wanted = list(range(candidates))
        if order == "random":
            drawing.shuffle(wanted)
        best_first.append(tuple(wanted))
        going |= {numbers[place]: candidates - rank for rank, place in enumerate(wanted)}
    return MadeLists(tuple(requests), going, tuple(best_first))


def made_passage(counts: Counts, number: int, tokens: int, drawing: random.Random) -> str:
    """Makes a passage of exactly so many tokens, real words in no order."""
    return _exactly(counts, tokens, f"number {number}:", drawing, "--passage-tokens")


def made_thought(counts: Counts, tokens: int, drawing: random.Random) -> str:
    """Makes a thought of exactly so many tokens, or an empty one of none."""
    return _exactly(counts, tokens, "", drawing, "--thought-tokens") if tokens else ""


def _exactly(counts: Counts, tokens: int, beginning: str, drawing: random.Random, option: str) -> str:
    words = drawing.choices(_words(), k=tokens)
    text = counts.cut_text(" ".join([beginning, *words]).strip(), tokens)
    if not text.startswith(beginning):
        least = counts.count_tokens(beginning) + _SHORTEST
        raise InputError(f"{option} is {tokens}: made-up texts need at least {least}")
    return _filled(counts.count_tokens, text, tokens, option)


def _filled(count: Callable[[str], int], text: str, tokens: int, option: str) -> str:
    while (left := tokens - count(text)) > 0:
        longer = ((word, f"{text} {word}".strip()) for word in _SHORT_WORDS.split())
        best = next((each for _, each in longer if tokens - left < count(each) <= tokens), None)
        if best is None:
            raise InputError(f"this tokenizer makes no text of exactly {tokens} tokens: try another {option}")
        text = best
    return text


@cache
def _words() -> Sequence[str]:
    """Plain words of the packaged collection, as often as they occur there."""
    with resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder:
        texts = [text for _, text in open_corpus(folder).iterate_documents()]
    return [word for text in texts for word in re.findall(r"\b[a-z]+\b", text) if word != "number"]
