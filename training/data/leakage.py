"""Keeps test queries and their positives out of training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from r1ranker_ir.data.corpora import Corpus

from .records import Record
from .samples import positives_of
from .text_digests import digest_of

QUERY_LEAKS = "a test query"
POSITIVE_LEAKS = "a test query's positive"


@dataclass(frozen=True)
class Leak:
    """One thing that test data and training data share."""

    what: str
    record_id: str
    candidate_id: str
    text: str
    test: str

    def __str__(self) -> str:
        named = f"query {self.record_id!r}"
        if self.candidate_id:
            named = f"positive {self.candidate_id!r} of {named}"
        return f"{named} is {self.what} of {self.test} ({self.text!r})"


@dataclass
class TestData:
    """What must not be trained on: queries and positives by text, and by id within a collection.

    Texts are compared without regard to case, punctuation and spaces, and are held as digests of 16 bytes.
    Positives count for passages alone: items and models are the same for everyone who is recommended or routed to.
    """

    __test__ = False  # no test class, whatever pytest takes its name for

    queries: dict[bytes, str] = field(default_factory=dict)
    positives: dict[bytes, str] = field(default_factory=dict)
    query_ids: dict[tuple[str, str], str] = field(default_factory=dict)
    positive_ids: dict[tuple[str, str], str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.queries)

    def add_corpus(self, corpus: Corpus) -> None:
        """Adds the judged queries of a corpus, and the documents judged relevant to them."""
        topics = corpus.queries()
        judged, relevant = dict[str, None](), dict[str, None]()
        for judgment in corpus.qrels():
            if judgment.query_id in topics:
                judged[judgment.query_id] = None
                if judgment.relevance > 0:
                    relevant[judgment.doc_id] = None
        for query_id in judged:
            self.queries[digest_of(topics[query_id])] = corpus.name
            self.query_ids[corpus.collection, query_id] = corpus.name
        for doc_id in relevant:
            self.positive_ids[corpus.collection, doc_id] = corpus.name
        for text in corpus.documents(relevant).values():
            if text.strip():
                self.positives[digest_of(text)] = corpus.name

    def add_record(self, record: Record, name: str) -> None:
        """Adds a record that is kept for evaluation: its query and all of its positives, by their texts."""
        self.queries[digest_of(record.context)] = name
        if record.task == "passage":
            for place in positives_of(record):
                self.positives[digest_of(record.candidates[place].text)] = name

    def leaks_of(self, record: Record, collection: str | None = None) -> list[Leak]:
        """Finds what a training record shares with the test data."""
        test = self.queries.get(digest_of(record.context)) or self._by_id(self.query_ids, collection, record.id)
        if test is not None:
            return [Leak(QUERY_LEAKS, record.id, "", _opening(record.context), test)]
        if record.task != "passage":
            return []
        leaks = []
        for place in positives_of(record):
            candidate = record.candidates[place]
            test = self._by_id(self.positive_ids, collection, candidate.id)
            test = test or self.positives.get(digest_of(candidate.text))
            if test is not None:
                leaks.append(Leak(POSITIVE_LEAKS, record.id, candidate.id, _opening(candidate.text), test))
        return leaks

    @staticmethod
    def _by_id(ids: dict[tuple[str, str], str], collection: str | None, id_: str) -> str | None:
        return None if collection is None else ids.get((collection, id_))


def without_leaks(record: Record, leaks: Iterable[Leak]) -> Record | None:
    """Takes out of a record what it shares with the test data."""
    found = list(leaks)
    if any(leak.what == QUERY_LEAKS for leak in found):
        return None
    leaking = {leak.candidate_id for leak in found}
    kept = [
        place
        for place, candidate in enumerate(record.candidates)
        if record.gains[place] == 0 or candidate.id not in leaking
    ]
    return replace(
        record,
        candidates=tuple(record.candidates[place] for place in kept),
        gains=tuple(record.gains[place] for place in kept),
    )


def count_leaks(leaks: Iterable[Leak]) -> Counter[str]:
    """Counts leaks by what they are."""
    return Counter(leak.what for leak in leaks)


def _opening(text: str, length: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"
