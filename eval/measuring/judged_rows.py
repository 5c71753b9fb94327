"""Rankers on one judged corpus: what each has cost, and what it is worth beside the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import InputError

from .comparison import Comparison

if TYPE_CHECKING:
    from ir_measures import Qrel

    from r1ranker_ir.types import Ranking, RankingRequest


class Ranks(Protocol):
    """A `Ranker`, or several put together."""

    @property
    def summary(self) -> RunSummary:
        """What it has cost so far."""
        ...

    def rank(self, requests: Iterable[RankingRequest]) -> list[Ranking]:
        """Ranks requests."""
        ...


@dataclass(frozen=True)
class CostRow:
    """What one ranker took."""

    name: str  # what it is called
    summary: RunSummary  # calls, tokens and repairs
    seconds: float  # from the first query to the last

    @property
    def tokens_computed(self) -> float:
        """Tokens per query that the model computed: of prompts, and written."""
        return (self.summary.prompt_tokens_computed + self.summary.usage.completion_tokens) / self.summary.queries


def judgments_of(corpus: str, requests: Sequence[RankingRequest]) -> list[Qrel]:
    """Reads the judgments of the queries that are ranked."""
    ranked = {request.query_id for request in requests}
    qrels = [judgment for judgment in open_corpus(corpus).qrels() if judgment.query_id in ranked]
    if not qrels:
        raise InputError(f"corpus {corpus!r} judges none of the {len(ranked)} queries: nothing can be measured")
    return qrels


def gains_of(qrels: Iterable[Qrel]) -> dict[str, dict[str, float]]:
    """Makes gains of judgments: a grade below 0 is no worse than not relevant, as measures take it."""
    gains: dict[str, dict[str, float]] = {}
    for judgment in qrels:
        gains.setdefault(judgment.query_id, {})[judgment.doc_id] = max(0.0, float(judgment.relevance))
    return gains


def rank_timed(name: str, ranker: Ranks, requests: Sequence[RankingRequest]) -> tuple[CostRow, list[Ranking]]:
    """Ranks requests by a ranker that has ranked nothing before."""
    started = time.perf_counter()
    rankings = ranker.rank(requests)
    return CostRow(name, ranker.summary, time.perf_counter() - started), rankings


def measures_data(comparison: Comparison, name: str) -> dict[str, Any]:
    """Lays the measures of one run out as JSON data."""
    [run] = (run for run in (comparison.baseline, *comparison.runs) if run.name == name)
    differences = {each.measure: each for each in comparison.differences if each.run == name}
    measures: dict[str, Any] = {}
    for measure in comparison.measures:
        estimate = run.means[measure]
        entry: dict[str, Any] = {"mean": estimate.mean, "interval": estimate.interval}
        if (difference := differences.get(measure)) is not None:
            entry |= {
                "difference": difference.mean.mean,
                "difference_interval": difference.mean.interval,
                "p_value": difference.p_value,
                "corrected_p_value": difference.corrected,
                "per_query_difference": dict(difference.per_query),
            }
        measures[str(measure)] = entry
    return measures
