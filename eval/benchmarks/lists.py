"""Made-up lists of passages of an exact number of tokens, and the order they are forced into."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from r1ranker_ir.backends.base import Backend
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Call, Candidate, RankingRequest

from .rows import SpeedSettings

_NUMBER = re.compile(r"\bnumber (\d+):")
_QUERY_WORDS = 8
_SHORT_WORDS = "a of is to in and the as it on no . , x"
_SHORTEST = 8


def make_lists(counts: Backend, settings: SpeedSettings) -> tuple[RankingRequest, ...]:
    """Makes requests without meaning; the same settings give the same ones.

    Every passage begins with a number of its own, by which it is known wherever a prompt shows it: of two passages, the
    one of the smaller number is the better.
    """
    drawing, requests = random.Random(settings.seed), list[RankingRequest]()
    for query in range(settings.queries):
        numbers = list(range(query * settings.candidates + 1, (query + 1) * settings.candidates + 1))
        if settings.order == "random":
            drawing.shuffle(numbers)
        passages = tuple(
            Candidate(str(number), made_passage(counts, number, settings.passage_tokens, drawing)) for number in numbers
        )
        asked = " ".join(drawing.choices(_words(), k=_QUERY_WORDS))
        requests.append(RankingRequest(asked, passages, query_id=f"q{query + 1}"))
    return tuple(requests)


def forced_order(request: RankingRequest) -> tuple[int, ...]:
    """The positions of a request's candidates, best first."""
    return tuple(sorted(range(len(request.candidates)), key=lambda place: int(request.candidates[place].id)))


def shown_numbers(call: Call) -> list[int]:
    """The numbers of the passages that a call's prompt shows, in its order."""
    return [int(number) for message in call.messages for number in _NUMBER.findall(message.content)]


def made_passage(counts: Backend, number: int, tokens: int, drawing: random.Random) -> str:
    """Makes a passage of exactly `tokens` tokens, real words in no order."""
    return _exactly(counts, tokens, f"number {number}:", drawing, "--passage-tokens")


def made_thought(counts: Backend, tokens: int, drawing: random.Random) -> str:
    """Makes a thought of exactly `tokens` tokens; it may be empty."""
    return _exactly(counts, tokens, "", drawing, "--thought-tokens") if tokens else ""


def _exactly(counts: Backend, tokens: int, beginning: str, drawing: random.Random, option: str) -> str:
    words = drawing.choices(_words(), k=tokens)
    text = counts.cut_text(" ".join([beginning, *words]).strip(), tokens)
    if not text.startswith(beginning):
        least = counts.count_tokens(beginning) + _SHORTEST
        raise InputError(f"{option} is {tokens}: made-up texts need at least {least}")
    while (counted := counts.count_tokens(text)) < tokens:
        longer = (f"{text} {word}".strip() for word in _SHORT_WORDS.split())
        best = next((each for each in longer if counted < counts.count_tokens(each) <= tokens), None)
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
