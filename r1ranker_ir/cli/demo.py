"""The demo: the whole path on the packaged collection, with a real small model where it is installed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.models.checkpoints import SMALL_LIKELIHOOD, TINY_CHECKPOINT
from r1ranker_ir.models.small import INSTALL_HINT, installed_small
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.retrieval.bm25 import BM25Index
from r1ranker_ir.runs.requests import entries_of, requests_of_run
from r1ranker_ir.runs.trace_view import print_ranking
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.types import Ranking, RankingRequest

if TYPE_CHECKING:
    from rich.console import Console

MEASURES = "nDCG@10 RR"
TINY = {"r1ranker-direct-tiny": "direct", "r1ranker-iterative-tiny": "iterative"}
SMALL = "r1ranker-likelihood-small"
CAVEAT = """\
These are few queries: the figures show how the parts work together, not how good a ranker is."""
NOT_INSTALLED = f"""\
{SMALL}, which ranks far better, is not installed: {INSTALL_HINT} adds it (93 MB)."""
LEGEND = """\
IRanker shows a model the candidates that are left, lets it think, and has it exclude the worst. This is the
embedded model of a few megabytes, which matches words.
A line of the model's thought names a passage, then each word of the query with + if the passage has
it (+ + for a rare word) and - if not, how many + that makes (=3), and how early the first word stands
(@1 is earliest, @9 nowhere).
Behind the semicolon stands the worst passage so far, which the last line thereby excludes.
"""


@dataclass(frozen=True)
class DemoRow:
    """What one stage reached and cost."""

    name: str
    run: Run
    calls: int
    seconds: float
    rankings: Mapping[str, Ranking] = field(default_factory=dict)


def run_demo(console: Console, *, query_id: str = "q01", depth: int = 10, progress: bool = False) -> None:
    """Searches, reranks, measures, and shows one ranking and one elimination."""
    with resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder:
        corpus = open_corpus(folder)
        topics, qrels = corpus.queries(), list(corpus.qrels())
        if query_id not in topics:
            raise InputError(f"the demo collection has no query {query_id!r}: it has {', '.join(topics)}")
        console.print(f"Demo collection: {len(topics)} queries. BM25 searches, then its top {depth} are reranked.")
        index = BM25Index(corpus)
        started = time.perf_counter()
        run = {each: index.search(text, depth) for each, text in topics.items()}
        first = DemoRow("BM25", run, 0, time.perf_counter() - started)
        requests = list(requests_of_run(corpus, run, depth))
    if query_id not in {request.query_id for request in requests}:
        raise InputError(f"BM25 finds nothing for query {query_id!r}: choose another")
    small = None if installed_small() is None else _reranked(SMALL, SMALL_LIKELIHOOD, "likelihood", requests, progress)
    tiny = [_reranked(name, TINY_CHECKPOINT, strategy, requests, progress) for name, strategy in TINY.items()]
    measured = {row.name: evaluate(qrels, row.run, parse_measures(MEASURES)).mean for row in (first, *tiny)}
    if small is not None:
        measured[SMALL] = evaluate(qrels, small.run, parse_measures(MEASURES)).mean
    shown = [first, small] if small is not None else [first, *tiny]
    _print_rows(console, shown, measured)
    if small is None:
        console.print(NOT_INSTALLED)
    else:
        reached = ", ".join(f"{row.name} {next(iter(measured[row.name].values())):.4f}" for row in tiny)
        console.print(f"The embedded model, which tests are run with, matches words: {MEASURES.split()[0]} {reached}.")
    console.print(CAVEAT)
    grades = {each.doc_id: each.relevance for each in qrels if each.query_id == query_id}
    if small is not None:
        _print_order(console, small.rankings[query_id], grades)
    console.rule("one elimination, step by step")
    console.print(LEGEND, markup=False)
    print_ranking(console, TracedRanking("iterative", tiny[-1].rankings[query_id]))
    judged = ", ".join(f"{name} {grade}" for name, grade in grades.items())
    console.print(f"\nJudged, from 0 (off the subject) to 3 (answers the query): {judged}", markup=False)


def _print_rows(console: Console, rows: Sequence[DemoRow], measured: Mapping[str, Mapping[Any, float]]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for heading in (*MEASURES.split(), "calls/query", "seconds/query"):
        table.add_column(heading, justify="right")
    for row in rows:
        costs = f"{row.calls / len(row.run):.1f}", f"{row.seconds / len(row.run):.2f}"
        table.add_row(row.name, *(f"{value:.4f}" for value in measured[row.name].values()), *costs)
    console.print(table)


def _print_order(console: Console, ranking: Ranking, grades: Mapping[str, int]) -> None:
    """Prints what a ranking by likelihood has made of BM25's order."""
    console.rule(f"what {SMALL} makes of one query")
    console.print(f"Query {ranking.request.query_id}: {ranking.request.query}", markup=False)
    console.print("A passage scores by how probable the query is behind it, in nats (log P).\n", markup=False)
    scores = {position: step.score for step in ranking.steps for position in step.shown}
    table = Table("", "log P", "BM25", "judged", "passage", box=None, pad_edge=False)
    for place, position in enumerate(ranking.order, start=1):
        candidate, score = ranking.request.candidates[position], scores.get(position)
        cells = "" if score is None else f"{score:.1f}", str(position + 1), str(grades.get(candidate.id, ""))
        table.add_row(f"{place}.", *cells, Text(candidate.text, no_wrap=True, overflow="ellipsis"))
    console.print(table)


def _reranked(
    name: str, model: str | Path, strategy: str, requests: Sequence[RankingRequest], progress: bool
) -> DemoRow:
    ranker = Ranker(model, strategy=strategy, progress=progress)
    started = time.perf_counter()
    rankings = {ranking.request.query_id: ranking for ranking in ranker.rank(requests)}
    seconds = time.perf_counter() - started
    run = {query_id: entries_of(ranking) for query_id, ranking in rankings.items()}
    return DemoRow(name, run, ranker.summary.usage.calls, seconds, rankings)
