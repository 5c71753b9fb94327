"""The chain: a searcher in Pyserini's form, and a reranker behind it, as a searcher again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import shown_ids
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.retrieval.hits import check_batch, text_of_stored
from r1ranker_ir.types import Candidate, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.data.corpora import Corpus

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RerankedHit:
    """A document at its new place, with all that the first stage's hit offers (`lucene_document`, …).

    The score, 1 − (rank − 1) / n for n documents, only says the rank again.
    """

    docid: str
    score: float
    first_stage: Any

    def __getattr__(self, name: str) -> Any:
        # Without this, copying and unpickling ask a still empty object for its hit, endlessly.
        if name == "first_stage" or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.first_stage, name)


class RerankPipeline:
    """Searches, reranks what was found, and has the `search` and `batch_search` of Pyserini's searchers itself.

    Args:
        searcher: any object with `search(q, k)` that returns hits with `docid` and `score`: `PyseriniSearcher`,
            Pyserini's `LuceneSearcher`, `LuceneImpactSearcher` or `FaissSearcher`, or another pipeline.
        reranker: a `Ranker`, or a reranker of the package `rerankers`, such as `Reranker("r1ranker-iterative-tiny")`.
        depth: how many documents of the first stage are reranked.
        texts: where the documents' texts come from: a corpus, a searcher whose index stores them, or a function
            from id to text (`None` for an unknown id). Without it, from the hits or `searcher.doc(docid)`.
    """

    def __init__(
        self,
        searcher: Any,
        reranker: Any,
        *,
        depth: int = 100,
        texts: Corpus | Callable[[str], str | None] | Any = None,
    ) -> None:
        if not callable(getattr(searcher, "search", None)):
            raise InputError(f"searcher is a {type(searcher).__name__}, which has no search(q, k): give a searcher")
        if not callable(getattr(reranker, "rank", None)):
            raise InputError(
                f"reranker is a {type(reranker).__name__}, which has no rank(): give a Ranker, or a reranker such as "
                f"Reranker('r1ranker-iterative-tiny')"
            )
        if depth < 1:
            raise InputError(f"depth is {depth}: rerank at least 1 document")
        self.searcher = searcher
        self.reranker = reranker
        self.depth = depth
        self._texts = texts

    def search(self, q: str, k: int = 10, **options: Any) -> list[RerankedHit]:
        """Searches for one query and reranks; above `depth`, the rest follows in the order of the first stage.

        `options` are what else the searcher's `search` takes.
        """
        self._check(q, k)
        hits = list(self.searcher.search(q, max(k, self.depth), **options))
        return self._rerank([q], [""], [hits], k)[0]

    def batch_search(
        self, queries: Sequence[str], qids: Sequence[str], k: int = 10, threads: int = 1, **options: Any
    ) -> dict[str, list[RerankedHit]]:
        """Searches for many queries, `threads` at once, and reranks them together: hits by query id."""
        check_batch(queries, qids)
        for query in queries:
            self._check(query, k)
        if not queries:
            return {}
        wanted, named = max(k, self.depth), zip(qids, queries, strict=True)
        if hasattr(self.searcher, "batch_search"):
            # By place, since Pyserini's classes call the ids qids here and q_ids there.
            found = self.searcher.batch_search(list(queries), list(qids), wanted, threads, **options)
        else:
            found = {qid: self.searcher.search(query, wanted, **options) for qid, query in named}
        hits = [list(found.get(qid, ())) for qid in qids]
        return dict(zip(qids, self._rerank(queries, qids, hits, k), strict=True))

    def doc(self, docid: str) -> Any:
        """Returns the searcher's document of an id, as Pyserini's searchers do."""
        return self.searcher.doc(docid)

    def _check(self, query: Any, k: int) -> None:
        if not isinstance(query, str):
            raise InputError(f"query is a {type(query).__name__}: a model reads text, so give a string")
        if k < 1:
            raise InputError(f"k is {k}: ask for at least 1 document")

    def _rerank(
        self, queries: Sequence[str], qids: Sequence[str], hit_lists: Sequence[list[Any]], k: int
    ) -> list[list[RerankedHit]]:
        texts = self._read_texts([hit for hits in hit_lists for hit in hits[: self.depth]])
        readable = [[hit for hit in hits[: self.depth] if str(hit.docid) in texts] for hits in hit_lists]
        requests = []
        for query, qid, shown in zip(queries, qids, readable, strict=True):
            found = ((str(hit.docid), float(hit.score)) for hit in shown)
            candidates = tuple(Candidate(docid, texts[docid], score) for docid, score in found)
            requests += [RankingRequest(query, candidates, query_id=qid)] if shown else []
        orders = iter(self._orders(requests))
        reranked = []
        for hits, shown in zip(hit_lists, readable, strict=True):
            best = [shown[place] for place in (next(orders) if shown else ())]
            ranked = {id(hit) for hit in best}
            order = [*best, *(hit for hit in hits if id(hit) not in ranked)][:k]
            scored = ((hit, 1 - rank / len(hits)) for rank, hit in enumerate(order))
            reranked.append([RerankedHit(str(hit.docid), score, hit) for hit, score in scored])
        return reranked

    def _orders(self, requests: Sequence[RankingRequest]) -> list[Sequence[int]]:
        """Positions of each request's candidates, best first."""
        ranker = getattr(self.reranker, "ranker", self.reranker)
        if isinstance(ranker, Ranker):
            return [ranking.order for ranking in ranker.rank(requests)] if requests else []
        orders: list[Sequence[int]] = []
        for request in requests:
            texts = [candidate.text for candidate in request.candidates]
            results = self.reranker.rank(query=request.query, docs=texts, doc_ids=list(range(len(texts))))
            orders.append([result.document.doc_id for result in results.results])
        return orders

    def _read_texts(self, hits: Sequence[Any]) -> dict[str, str]:
        """The texts by id; documents without one are logged, and it is an error if none has one."""
        first = {str(hit.docid): hit for hit in reversed(hits)}
        if hasattr(self._texts, "documents"):
            texts = dict(self._texts.documents(first))
        else:
            read = {docid: self._text_of(docid, hit) for docid, hit in first.items()}
            texts = {docid: text for docid, text in read.items() if text is not None}
        lacking = [docid for docid in dict.fromkeys(str(hit.docid) for hit in hits) if docid not in texts]
        if lacking and not texts:
            raise InputError(
                f"none of the {len(lacking)} documents found has a text ({shown_ids(lacking)}): the index stores none, "
                f"or texts= knows none of them. Give texts=: a corpus, a searcher whose index stores them, or a "
                f"function from id to text"
            )
        if lacking:
            logger.warning(
                "%d documents have no text and stay in the first stage's order, below those that were reranked: %s",
                *(len(lacking), shown_ids(lacking)),
            )
        return texts

    def _text_of(self, docid: str, hit: Any) -> str | None:
        if callable(self._texts):
            return self._texts(docid)
        raw, source = None, self._texts
        if source is None:
            source, stored = self.searcher, getattr(hit, "lucene_document", None)
            raw = stored.get("raw") if stored is not None else None
        if raw is None and hasattr(source, "doc"):
            document = source.doc(docid)
            raw = document.raw() if document is not None else None
        return None if raw is None else text_of_stored(raw, docid)
