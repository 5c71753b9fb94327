"""The results of the rerankers: those of `rerankers`, with ids, metadata and the way to the order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from rerankers.results import RankedResults, Result

from r1ranker_ir.integrations.documents import Entry
from r1ranker_ir.quoting import quoted
from r1ranker_ir.runs.traces import CASCADE, TracedRanking
from r1ranker_ir.types import Condition, Ranking, Step, Usage, place_score


class TracedResult(Result):  # type: ignore[misc]  # rerankers has no types
    """One ranked document.

    Attributes:
        document: the caller's `Document`, the very same object, or a new one around the caller's text.
        rank: place in the ranking; 1 is the best.
        score: 1 − (rank − 1) / n for n documents. It only says the rank again: not a probability, not comparable
            between queries.
        doc_id: the document's id, also where it was generated (the position in the input) or came from `doc_ids`.
        metadata: the document's metadata, also where they came from `metadata`.
    """

    def __init__(self, entry: Entry, rank: int, of: int) -> None:
        super().__init__(entry.document, score=place_score(rank - 1, of), rank=rank)
        self.doc_id = entry.doc_id
        self.metadata = entry.metadata

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.rank}: {quoted(self.doc_id)}, {quoted(self.document.text)}>"

    def __getattr__(self, item: str) -> Any:
        # Without this, copying and unpickling ask a still empty object for its document, endlessly.
        if item == "document" or item.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {item!r}")
        try:
            return super().__getattr__(item)
        except AttributeError:
            if item not in self.__dict__.get("metadata", ()):
                raise
            return self.metadata[item]


class TracedResults(RankedResults):  # type: ignore[misc]  # rerankers has no types
    """The ranked documents of one query, and how the model came to the order.

    Attributes:
        results: every document once, best first.
        query: the query.
        has_scores: always true; see `TracedResult.score` for what a score means.
        ranking: the whole outcome in terms of positions in the input.
    """

    results: list[TracedResult]

    def __init__(
        self,
        ranking: Ranking,
        entries: Sequence[Entry],
        strategy: str = CASCADE,
        notes: Sequence[str] = (),
        conditions: Mapping[str, Condition] = MappingProxyType({}),
    ) -> None:
        results = [TracedResult(entries[place], rank, len(entries)) for rank, place in enumerate(ranking.order, 1)]
        super().__init__(results=results, query=ranking.request.query, has_scores=True)
        self.ranking = ranking
        self._traced = TracedRanking(strategy, ranking, tuple(notes), dict(conditions))

    @property
    def trace(self) -> tuple[Step, ...]:
        """One step per model call, in their order: thought, probabilities, outcome and usage of each."""
        return self.ranking.steps

    @property
    def usage(self) -> Usage:
        """Calls and tokens spent on this query."""
        return self.ranking.usage

    @property
    def repairs(self) -> int:
        """How many of the model's answers could not be used as they stood."""
        return self.ranking.repairs

    def get_result_by_docid(self, doc_id: Any) -> TracedResult | None:
        """The best result with that id, generated ones too; `None` if no document has it."""
        return next((result for result in self.results if result.doc_id == doc_id), None)

    def get_score_by_docid(self, doc_id: Any) -> float | None:
        """The score of the best result with that id; `None` if no document has it."""
        result = self.get_result_by_docid(doc_id)
        return None if result is None else result.score

    def to_dict(self) -> dict[str, Any]:
        """The results as plain data for JSON: `results`, best first, and all that a line of a trace has.

        Texts are in `texts`, under the ids of `order`, which is in the order of `results`.
        """
        kept = ("rank", "doc_id", "score", "metadata")
        rows = [{name: getattr(result, name) for name in kept} for result in self.results]
        reasons = self.ranking.reasons
        return {
            "results": [{**row, "reason": reason} for row, reason in zip(rows, reasons, strict=True)],
            **self._traced.to_dict(),
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON, which `r1ranker trace` reads; values that JSON does not have become texts."""
        return json.dumps(self.to_dict(), default=str)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.ranking!r}>"

    def _repr_html_(self) -> str:
        return self._traced._repr_html_()


@runtime_checkable
class RanksTexts(Protocol):
    """What orders texts for a query, such as the classes of `integrations.rerankers`."""

    def rank(self, query: str, docs: Sequence[str]) -> TracedResults: ...

    async def rank_async(self, query: str, docs: Sequence[str]) -> TracedResults: ...
