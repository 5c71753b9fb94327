"""Keeps test queries and their positives out of training data."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from r1ranker_ir.data.corpora import Corpus, open_corpus
from r1ranker_ir.data.request_corpus import RequestCorpus
from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.thoughts.choosing import words_of
from r1ranker_ir.types import RankingRequest

from .records import shown_of
from .samples import positives_of

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
    query_ids: dict[tuple[str | None, str], str] = field(default_factory=dict)
    positive_ids: dict[tuple[str | None, str], str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.queries)

    def add_corpus(self, corpus: Corpus) -> None:
        """Adds the judged queries of a corpus, and the documents judged relevant to them."""
        topics = corpus.queries()
        judgments = [judgment for judgment in corpus.qrels() if judgment.query_id in topics]
        for query_id in {judgment.query_id for judgment in judgments}:
            self.queries[digest_of(topics[query_id])] = corpus.name
            self.query_ids[corpus.collection, query_id] = corpus.name
        relevant = dict.fromkeys(judgment.doc_id for judgment in judgments if judgment.relevance > 0)
        self.positive_ids |= dict.fromkeys(((corpus.collection, doc_id) for doc_id in relevant), corpus.name)
        texts = corpus.documents(relevant).values()
        self.positives |= dict.fromkeys((digest_of(text) for text in texts if text.strip()), corpus.name)

    def add_record(self, record: JudgedRequest, name: str) -> None:
        """Adds a record that is kept for evaluation: its query and all of its positives, by their texts."""
        self.queries[digest_of(record.request.query)] = name
        if record.request.task == "passage":
            for place in positives_of(record):
                self.positives[digest_of(record.request.candidates[place].text)] = name

    def test_of_query(self, request: RankingRequest, collection: str | None = None) -> str | None:
        """Names the test data that a query is of, if any."""
        return self.queries.get(digest_of(request.query)) or self.query_ids.get((collection, request.query_id))

    def test_of_passage(self, doc_id: str, text: str, collection: str | None = None) -> str | None:
        """Names the test data of which a passage is a positive, if any."""
        return self.positive_ids.get((collection, doc_id)) or self.positives.get(digest_of(text))

    def leaks_of(self, record: JudgedRequest, collection: str | None = None) -> list[Leak]:
        """Finds what a training record shares with the test data; ids count within their collection alone."""
        request, asked = record.request, record.request.query_id
        if (test := self.test_of_query(request, collection)) is not None:
            return [Leak(QUERY_LEAKS, asked, "", _opening(request.query), test)]
        leaks = []
        for place in positives_of(record) if request.task == "passage" else ():
            candidate = request.candidates[place]
            if (test := self.test_of_passage(candidate.id, candidate.text, collection)) is not None:
                leaks.append(Leak(POSITIVE_LEAKS, asked, candidate.id, _opening(candidate.text), test))
        return leaks


def test_data_of(corpora: Sequence[str]) -> TestData:
    """The judged queries of corpora, or of files of ranking requests, and their positives."""
    test = TestData()
    for name in corpora:
        corpus = open_corpus(name)
        if isinstance(corpus, RequestCorpus):
            for judged in corpus.requests():
                test.add_record(judged, corpus.name)
        else:
            test.add_corpus(corpus)
    return test


def digest_of(text: str) -> bytes:
    """Digests the words of a text: 16 bytes, equal for texts whose words are after NFKC and case folding.

    For texts without a word, those of the text itself.
    """
    words = " ".join(words_of(text)) or unicodedata.normalize("NFKC", text).casefold().strip()
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def without_leaks(record: JudgedRequest, leaks: Sequence[Leak]) -> JudgedRequest | None:
    """Takes out of a record what it shares with the test data; `None` where that is its query."""
    if any(leak.what == QUERY_LEAKS for leak in leaks):
        return None
    leaking = {leak.candidate_id for leak in leaks}
    shown = enumerate(zip(record.request.candidates, record.gains, strict=True))
    return shown_of(record, [place for place, (each, gain) in shown if gain == 0 or each.id not in leaking])


def _opening(text: str, length: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"
