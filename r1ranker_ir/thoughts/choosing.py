"""Which thoughts of a bank are shown for a query: those of the nearest ones, and never what would give it away."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from r1ranker_ir.prompts.worked_examples import WorkedExample
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Asked, RankingRequest

from .bank import ThoughtBank

if TYPE_CHECKING:
    import numpy as np

    from r1ranker_ir.models.encoder import SentenceEncoder
    from r1ranker_ir.retrieval.bm25 import BM25Index

logger = logging.getLogger(__name__)

ExampleKind = Literal["nearest", "random", "answers"]
EXAMPLE_KINDS: tuple[ExampleKind, ...] = get_args(ExampleKind)
OWN, NEAR_DUPLICATE, SHARED = "the query itself", "a near-duplicate of the query", "a candidate in common"
NEAR = 0.8
"""From this share of common words on (Jaccard), two queries are near-duplicates."""
_WORD = re.compile(r"\w+")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, after NFKC and case folding."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _open_encoder(model: str) -> SentenceEncoder:
    from r1ranker_ir.models.encoder import SentenceEncoder

    return SentenceEncoder(model)


@dataclass
class _Queries:
    """Queries as documents to search, each named by its place."""

    name: str
    queries: Sequence[str]

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        return ((str(place), query) for place, query in enumerate(self.queries))


class ExampleChooser:
    """Chooses examples for requests: the same for the same request, whatever came before.

    Args:
        bank: where they come from.
        count: how many are chosen, at most one of a query.
        kind: the `nearest` queries', `random` ones, or the nearest ones' `answers` without their thoughts.
        encoder: a sentence encoder (see `SentenceEncoder`) that says which queries are near; BM25 where there is none.

    `left_out` holds why how many queries of the bank were left out, summed over the requests asked about.
    """

    def __init__(
        self, bank: ThoughtBank, count: int, kind: ExampleKind = "nearest", encoder: str | None = None
    ) -> None:
        self.bank, self.count, self.kind = bank, count, kind
        self._encoder = None if encoder is None else _open_encoder(encoder)
        self.left_out = dict.fromkeys((OWN, NEAR_DUPLICATE, SHARED), 0)
        self._told: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._chosen = lru_cache(maxsize=4096)(self._choose)

    def __call__(self, request: RankingRequest, asks: Asked) -> Sequence[WorkedExample]:
        return self._chosen(request, asks)

    def report(self) -> str:
        """Says in one line what was left out."""
        found = ", ".join(f"{number} with {why}" for why, number in self.left_out.items() if number)
        return f"left out of the examples: {found or 'nothing'}"

    @cached_property
    def _texts(self) -> list[frozenset[tuple[str, ...]]]:
        return [frozenset(map(words_of, example.texts)) for example in self.bank.examples]

    @cached_property
    def _queries(self) -> list[tuple[str, ...]]:
        return [words_of(example.query) for example in self.bank.examples]

    @cached_property
    def _index(self) -> BM25Index:
        from r1ranker_ir.retrieval.bm25 import BM25Index

        return BM25Index(_Queries(self.bank.path, [example.query for example in self.bank.examples]))

    @cached_property
    def _vectors(self) -> np.ndarray:
        assert self._encoder is not None
        vectors: np.ndarray = self._encoder.embed([example.query for example in self.bank.examples])
        return vectors

    def _scores(self, query: str) -> Sequence[float]:
        if self._encoder is not None:
            near: Sequence[float] = (self._vectors @ self._encoder.embed([query])[0]).tolist()
            return near
        if not any(self._queries):
            return [0.0] * len(self._queries)
        return self._index.score(query, [str(place) for place in range(len(self._queries))])

    def _choose(self, request: RankingRequest, asks: Asked) -> tuple[WorkedExample, ...]:
        fitting = [
            place
            for place, example in enumerate(self.bank.examples)
            if example.asks == asks and example.task == request.task
        ]
        reasons = {place: self._why_not(request, place) for place in fitting}
        self._count(request, reasons)
        # A query that is left out with one of its thoughts is left out with all of them.
        out = {self._queries[place] for place, reason in reasons.items() if reason}
        # Of a query the thought about the fewest candidates, which takes the least room.
        one: dict[tuple[str, ...], int] = {}
        for place in sorted(fitting, key=lambda place: (len(self.bank.examples[place].texts), place)):
            if self._queries[place] not in out:
                one.setdefault(self._queries[place], place)
        places = sorted(one.values())
        if self.kind == "random":
            places = seeded_by(request.query).sample(places, min(self.count, len(places)))
        else:
            scores = self._scores(request.query)
            near = [place for place in places if scores[place] > 0]
            places = sorted(near, key=lambda place: (-scores[place], place))[: self.count]
        examples = [self.bank.examples[place] for place in places]
        return tuple(replace(each, thought="") if self.kind == "answers" else each for each in examples)

    def _why_not(self, request: RankingRequest, place: int) -> str:
        example, asked = self.bank.examples[place], words_of(request.query)
        if (example.query_id and example.query_id == request.query_id) or self._queries[place] == asked:
            return OWN
        here, there = set(asked), set(self._queries[place])
        if here and len(here & there) >= NEAR * len(here | there):
            return NEAR_DUPLICATE
        # Items and models are the same for everyone who is recommended or routed to.
        passages = (
            {words_of(candidate.text) for candidate in request.candidates} if request.task == "passage" else set()
        )
        return SHARED if self._texts[place] & (passages - {()}) else ""

    def _count(self, request: RankingRequest, reasons: dict[int, str]) -> None:
        for place, reason in reasons.items():
            pair = (request.query_id or request.query, self.bank.examples[place].query)
            if not reason or pair in self._seen:
                continue
            self._seen.add(pair)
            self.left_out[reason] += 1
            if reason != OWN and reason not in self._told:
                self._told.add(reason)
                logger.warning(
                    "thoughts of query %r are left out of the examples for %r: %s; further such cases are only counted",
                    self.bank.examples[place].query_id,
                    request.query_id or request.query,
                    reason,
                )
