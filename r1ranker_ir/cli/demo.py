"""The demo: the whole path on the packaged collection with the embedded model, and one elimination from inside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.retrieval.bm25 import BM25Index
from r1ranker_ir.runs.requests import entries_of, requests_of_run
from r1ranker_ir.runs.trace_view import print_ranking
from r1ranker_ir.runs.traces import TracedRanking
from r1ranker_ir.types import Ranking, RankingRequest

if TYPE_CHECKING:
    from rich.console import Console

MEASURES = "nDCG@10 RR"
STAGES = (("DRanker (direct)", "direct"), ("IRanker (iterative)", "iterative"))
CAVEAT = """\
The embedded model is tiny: it looks which words of the query a passage holds. It matches words, not
meaning, and these are few queries: the figures show how the parts work together, and nothing about
the quality of reasoning rerankers. For that, use a real model (see the README)."""
LEGEND = """\
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
    """Searches, reranks twice, measures, and shows one elimination."""
    with resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder:
        corpus = open_corpus(folder)
        topics, qrels = corpus.queries(), list(corpus.qrels())
        if query_id not in topics:
            raise InputError(f"the demo collection has no query {query_id!r}: it has {', '.join(topics)}")
        console.print(f"Demo collection: {len(topics)} queries. BM25 searches, then the embedded model reranks its top")
        console.print(f"{depth} documents for each, once in each way.")
        index = BM25Index(corpus)
        started = time.perf_counter()
        run = {each: index.search(text, depth) for each, text in topics.items()}
        first = DemoRow("BM25", run, 0, time.perf_counter() - started)
        requests = list(requests_of_run(corpus, run, depth))
    rows = [first, *(_reranked(name, strategy, requests, progress) for name, strategy in STAGES)]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for heading in (*MEASURES.split(), "LLM calls/query", "seconds/query"):
        table.add_column(heading, justify="right")
    for row in rows:
        means = evaluate(qrels, row.run, parse_measures(MEASURES)).mean.values()
        costs = f"{row.calls / len(row.run):.1f}", f"{row.seconds / len(row.run):.4f}"
        table.add_row(row.name, *(f"{value:.4f}" for value in means), *costs)
    console.print(table)
    console.print(CAVEAT)
    if query_id not in rows[-1].rankings:
        raise InputError(f"BM25 finds nothing for query {query_id!r}: choose another")
    console.rule("one elimination, step by step")
    console.print(LEGEND, markup=False)
    print_ranking(console, TracedRanking("iterative", rows[-1].rankings[query_id]))
    judged = ", ".join(f"{each.doc_id} {each.relevance}" for each in qrels if each.query_id == query_id)
    console.print(f"\nJudged, from 0 (off the subject) to 3 (answers the query): {judged}", markup=False)


def _reranked(name: str, strategy: str, requests: Sequence[RankingRequest], progress: bool) -> DemoRow:
    ranker = Ranker(TINY_CHECKPOINT, strategy=strategy, progress=progress)
    started = time.perf_counter()
    rankings = {ranking.request.query_id: ranking for ranking in ranker.rank(requests)}
    seconds = time.perf_counter() - started
    run = {query_id: entries_of(ranking) for query_id, ranking in rankings.items()}
    return DemoRow(name, run, ranker.summary.usage.calls, seconds, rankings)
