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

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus

K1 = 0.9
B = 0.4


class Documents(Protocol):
    """What is indexed: the documents of a corpus, or anything else with texts.

    Attributes:
        name: for messages.
    """

    name: str

    def iterate_documents(self) -> Iterator[tuple[str, str]]:
        """Yields id and text of every document."""
        ...


class BM25Index:
    """An index in memory over the documents of a corpus.

    Args:
        corpus: is read once, as a stream; ids and term counts stay in memory, the texts do not.
        progress: shows progress bars on standard error.
    """

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
        """Finds the documents that share a word with the query."""
        if depth < 1:
            raise InputError(f"depth is {depth}: ask for at least 1 document")
        scores = self._scores(query)
        return tuple(RunEntry(self._doc_ids[place], float(scores[place])) for place in _best(scores, depth))

    def score(self, query: str, doc_ids: Sequence[str]) -> list[float]:
        """Scores some documents."""
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
    """Searches a corpus with BM25."""
    from tqdm import tqdm

    if depth < 1:
        raise InputError(f"depth is {depth}: ask for at least 1 document")
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
