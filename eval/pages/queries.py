"""The candidates of one query, from all runs and traces, each under one number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.eval.pages.traced import shown_text
from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.types import Ranking


@dataclass
class QueryCandidates:
    """What the page says of a query's candidates."""

    query: str
    numbers: dict[str, int] = field(default_factory=dict)  # by id
    texts: dict[int, str] = field(default_factory=dict)  # as they are shown

    def number(self, doc_id: str) -> int:
        """The number of a candidate."""
        return self.numbers.setdefault(doc_id, len(self.numbers))

    def add(self, ranking: Ranking, characters: int) -> dict[int, int]:
        """Takes in the candidates of a ranking, and gives their numbers by position."""
        candidates = ranking.request.candidates
        places = {position: self.number(candidate.id) for position, candidate in enumerate(candidates)}
        for position, candidate in enumerate(candidates):
            self.texts.setdefault(places[position], shown_text(candidate.text, characters))
        return places

    @property
    def without_text(self) -> list[str]:
        """Ids of candidates whose text is not known yet."""
        return [doc_id for doc_id, number in self.numbers.items() if number not in self.texts]

    def data(self, query_id: str, runs: Iterable[Run], grades: Mapping[str, float] | None) -> dict[str, Any]:
        """The query and its candidates as plain data, with the rank of each in each run, from 1."""
        ranks = [{entry.doc_id: rank for rank, entry in enumerate(run.get(query_id, ()), start=1)} for run in runs]
        return {
            "query": shown_text(self.query),
            "candidates": [
                {"id": visible(doc_id), "grade": (grades or {}).get(doc_id), "text": self.texts.get(number)}
                for doc_id, number in self.numbers.items()
            ],
            "ranks": [[rank.get(doc_id) for doc_id in self.numbers] for rank in ranks],
        }


def add_top(candidates: QueryCandidates, query_id: str, runs: Iterable[Run], depth: int) -> None:
    """Takes in the first documents of runs."""
    for run in runs:
        for entry in run.get(query_id, ())[:depth]:
            candidates.number(entry.doc_id)


def add_texts(found: Sequence[QueryCandidates], texts: Mapping[str, str], characters: int) -> None:
    """Takes in texts by document id."""
    for candidates in found:
        for doc_id in candidates.without_text:
            if doc_id in texts:
                candidates.texts[candidates.numbers[doc_id]] = shown_text(texts[doc_id], characters)
