"""Short lists of the packaged collection in which one passage answers the query and the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Candidate, RankingRequest

_COLLECTION = "demo_collection"
# How far apart in the collection the queries lie whose passages stand in one list.
_STEP = 5


@dataclass(frozen=True)
class ClearList:
    """One list."""

    request: RankingRequest
    best: str  # the id of the only candidate that answers the query

    def backwards(self) -> RankingRequest:
        """The same candidates in the opposite order."""
        request = self.request
        return RankingRequest(request.query, request.candidates[::-1], query_id=f"{request.query_id} backwards")


def clear_lists(count: int, candidates: int) -> list[ClearList]:
    """Makes lists of the packaged collection, the same ones each time; the place of the best one moves on."""
    with resources.as_file(resources.files("r1ranker_ir") / _COLLECTION) as folder:
        corpus = open_corpus(str(folder))
        grades = gains_of(corpus.qrels())
        best = {query_id: max(own, key=lambda doc_id: (own[doc_id], doc_id)) for query_id, own in grades.items()}
        queries = {query_id: text for query_id, text in corpus.queries().items() if query_id in best}
        ids, most = list(queries), len(queries) // _STEP
        if not 1 <= count <= len(ids) or not 2 <= candidates <= most:
            raise InputError(
                f"{count} lists of {candidates} candidates: give 1 to {len(ids)} queries, and 2 to {most} candidates"
            )
        texts = corpus.documents(list(best.values()))
    lists = []
    for number, query_id in enumerate(ids[:count]):
        steps = (best[ids[(number + _STEP * (step + 1)) % len(ids)]] for step in range(len(ids)))
        others = list(dict.fromkeys(other for other in steps if grades[query_id].get(other, 0) <= 0))[: candidates - 1]
        place = number % candidates
        chosen = [*others[:place], best[query_id], *others[place:]]
        shown = tuple(Candidate(doc_id, texts[doc_id]) for doc_id in chosen)
        lists.append(ClearList(RankingRequest(queries[query_id], shown, query_id=query_id), best[query_id]))
    return lists
