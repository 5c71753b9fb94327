"""Short lists of the packaged collection in which one passage answers the query and the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Candidate, RankingRequest

_COLLECTION = "demo_collection"
# How far apart in the collection the queries lie whose passages stand in one list.
_STEP = 5


@dataclass(frozen=True)
class ClearList:
    """One list."""

    request: RankingRequest  # the query and its candidates
    best: str  # the id of the only candidate that answers it

    def backwards(self) -> RankingRequest:
        """The same candidates in the opposite order."""
        request = self.request
        return RankingRequest(request.query, request.candidates[::-1], query_id=f"{request.query_id} backwards")


def clear_lists(count: int, candidates: int) -> list[ClearList]:
    """Makes lists of the packaged collection."""
    with resources.as_file(resources.files("r1ranker_ir") / _COLLECTION) as folder:
        corpus = open_corpus(str(folder))
        queries, qrels = corpus.queries(), list(corpus.qrels())
        grades: dict[str, dict[str, int]] = {}
        for judgment in qrels:
            grades.setdefault(judgment.query_id, {})[judgment.doc_id] = judgment.relevance
        best = {
            query_id: max(judged, key=lambda doc_id: (judged[doc_id], doc_id)) for query_id, judged in grades.items()
        }
        ids = [query_id for query_id in queries if query_id in best]
        if not 1 <= count <= len(ids) or not 2 <= candidates <= len(ids) // _STEP:
            raise InputError(
                f"{count} lists of {candidates} candidates: give 1 to {len(ids)} queries, and 2 to {len(ids) // _STEP} "
                f"candidates"
            )
        texts = corpus.documents(list(best.values()))
    return [_list(number, ids, queries, best, grades, texts, candidates) for number in range(count)]


def _list(
    number: int,
    ids: Sequence[str],
    queries: dict[str, str],
    best: dict[str, str],
    grades: dict[str, dict[str, int]],
    texts: dict[str, str],
    candidates: int,
) -> ClearList:
    query_id = ids[number]
    others: list[str] = []
    for step in range(len(ids)):
        other = best[ids[(number + _STEP * (step + 1)) % len(ids)]]
        if grades[query_id].get(other, 0) <= 0 and other not in others and len(others) < candidates - 1:
            others.append(other)
    place = number % candidates
    chosen = [*others[:place], best[query_id], *others[place:]]
    shown = tuple(Candidate(doc_id, texts[doc_id]) for doc_id in chosen)
    return ClearList(RankingRequest(queries[query_id], shown, query_id=query_id), best[query_id])
