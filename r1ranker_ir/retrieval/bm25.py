"""The embedded first stage: BM25 by bm25s.

Words of two characters or more are lower-cased, the 33 English stop words of bm25s (Lucene's list) are dropped, and
the rest is stemmed by PyStemmer's English (Snowball) stemmer. k1 = 0.9 and b = 0.4 are the values that Anserini and
Pyserini use for passages; the scoring variant is Lucene's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.retrieval.first_stages import check_depth

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus

K1 = 0.9
B = 0.4


class Documents(Protocol):
    """What is indexed, with a name for messages: the documents of a corpus, or anything else with texts."""

    name: str

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Yields id and text of every document."""
        ...


class BM25Index:
    """An index in memory over documents, which are read once, as a stream; their texts are not kept."""

    def __init__(self, corpus: Documents, *, progress: bool = False) -> None:
        import bm25s
        import Stemmer
        from tqdm import tqdm

        self._tokenizer = bm25s.tokenization.Tokenizer(stemmer=Stemmer.Stemmer("english"), stopwords="english")
        self._doc_ids: list[str] = []
        stream = tqdm(corpus.iterate_documents(), desc="Reading documents", unit="doc", disable=not progress)
        tokens = list(self._tokenizer.streaming_tokenize(self._texts(stream), allow_empty=False))
        if not self._doc_ids:
            raise InputError(f"corpus {corpus.name!r} holds no documents: there is nothing to search")
        if not any(tokens):
            raise InputError(f"corpus {corpus.name!r} holds no words of two characters or more: BM25 can't index it")
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        self._index.index(self._tokenizer.to_tokenized_tuple(tokens), show_progress=progress)

    def search(self, query: str, depth: int) -> tuple[RunEntry, ...]:
        """The documents that share a word with the query, best first, equal scores in corpus order."""
        check_depth(depth)
        scores = self._scores(query)
        return tuple(RunEntry(self._doc_ids[place], float(scores[place])) for place in _best(scores, depth))

    def score(self, query: str, doc_ids: Sequence[str]) -> list[float]:
        """Scores of documents that are indexed, in the order of the ids; 0 where no word is shared."""
        scores = self._scores(query)
        return [float(scores[self._places[doc_id]]) for doc_id in doc_ids]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {doc_id: place for place, doc_id in enumerate(self._doc_ids)}

    def _scores(self, query: str) -> np.ndarray:
        [tokens] = self._tokenizer.streaming_tokenize([query], update_vocab=False, allow_empty=False)
        scores: np.ndarray = self._index.get_scores(tokens) if tokens else np.zeros(len(self._doc_ids))
        return scores

    def _texts(self, documents: Iterator[tuple[str, str]]) -> Iterator[str]:
        for doc_id, text in documents:
            self._doc_ids.append(doc_id)
            yield text


def search(
    corpus: Corpus, depth: int, queries: Mapping[str, str] | None = None, *, progress: bool = False
) -> dict[str, tuple[RunEntry, ...]]:
    """Searches a corpus for its own queries or others: a run with an entry for every query, in their order."""
    from tqdm import tqdm

    check_depth(depth)
    queries = corpus.queries() if queries is None else queries
    index = BM25Index(corpus, progress=progress)
    shown = tqdm(queries.items(), desc="Searching", unit="query", disable=not progress)
    return {query_id: index.search(text, depth) for query_id, text in shown}


def _best(scores: np.ndarray, depth: int) -> np.ndarray:
    """Returns the places of the `depth` best positive scores, ties by place (bm25s' own selection leaves them open)."""
    places = np.flatnonzero(scores > 0)
    if len(places) > depth:
        least = np.partition(scores[places], len(places) - depth)[len(places) - depth]
        above, level = places[scores[places] > least], places[scores[places] == least]
        places = np.sort(np.concatenate([above, level[: depth - len(above)]]))
    return places[np.argsort(-scores[places], kind="stable")]
