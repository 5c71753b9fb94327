"""The demo: the whole path on the packaged collection with the embedded model, and one elimination from inside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from r1ranker_ir.data.trec_runs import Run, RunEntry
from r1ranker_ir.errors import InputError
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.retrieval.bm25 import BM25Index
from r1ranker_ir.runs.requests import entries_of, requests_of_run
from r1ranker_ir.types import Ranking, RankingRequest, Step

if TYPE_CHECKING:
    from ir_measures import Qrel
    from rich.console import Console

    from r1ranker_ir.data.corpora import Corpus

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
Behind the semicolon stands the worst passage so far, which the last line thereby excludes."""


@dataclass(frozen=True)
class DemoRow:
    """What one stage reached and cost."""

    name: str
    run: Run
    measures: Mapping[str, float]
    calls_per_query: float
    seconds_per_query: float
    rankings: Mapping[str, Ranking]


def run_demo(console: Console, *, query_id: str = "q01", depth: int = 10, progress: bool = False) -> list[DemoRow]:
    """Searches, reranks twice, measures, and shows one elimination."""
    from r1ranker_ir.data.corpora import open_corpus

    with resources.as_file(resources.files("r1ranker_ir") / "demo_collection") as folder:
        corpus = open_corpus(folder)
        topics, qrels = corpus.queries(), corpus.qrels()
        if query_id not in topics:
            raise InputError(f"the demo collection has no query {query_id!r}: it has {', '.join(topics)}")
        console.print(f"Demo collection: {len(topics)} queries. BM25 searches, then the embedded model reranks its top")
        console.print(f"{depth} documents for each, once in each way.")
        first = search_stage(corpus, topics, qrels, depth)
        requests = list(requests_of_run(corpus, first.run, depth))
    rows = [first, *(rerank_stage(name, strategy, requests, qrels, progress) for name, strategy in STAGES)]
    print_rows(console, rows)
    if query_id not in rows[-1].rankings:
        raise InputError(f"BM25 finds nothing for query {query_id!r}: choose another")
    grades = {judged.doc_id: judged.relevance for judged in qrels if judged.query_id == query_id}
    print_elimination(console, rows[-1].rankings[query_id], grades)
    return rows


def search_stage(corpus: Corpus, topics: Mapping[str, str], qrels: Sequence[Qrel], depth: int) -> DemoRow:
    """Runs BM25 over all queries."""
    index = BM25Index(corpus)
    started = time.perf_counter()
    run = {query_id: index.search(text, depth) for query_id, text in topics.items()}
    seconds = time.perf_counter() - started
    return DemoRow("BM25", run, _means(qrels, run), 0.0, seconds / len(topics), {})


def rerank_stage(
    name: str, strategy: str, requests: Sequence[RankingRequest], qrels: Sequence[Qrel], progress: bool
) -> DemoRow:
    """Reranks with the embedded model."""
    from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
    from r1ranker_ir.rankers.ranker import Ranker

    ranker = Ranker(TINY_CHECKPOINT, strategy=strategy, progress=progress)
    started = time.perf_counter()
    rankings = {ranking.request.query_id: ranking for ranking in ranker.rank(requests)}
    seconds = time.perf_counter() - started
    run: dict[str, tuple[RunEntry, ...]] = {query_id: entries_of(ranking) for query_id, ranking in rankings.items()}
    count = len(requests)
    return DemoRow(name, run, _means(qrels, run), ranker.summary.usage.calls / count, seconds / count, rankings)


def print_rows(console: Console, rows: Sequence[DemoRow]) -> None:
    """Prints the stages as a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for heading in (*rows[0].measures, "LLM calls/query", "seconds/query"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (f"{value:.4f}" for value in row.measures.values())
        table.add_row(row.name, *figures, f"{row.calls_per_query:.1f}", f"{row.seconds_per_query:.4f}")
    console.print(table)
    console.print(CAVEAT)


def print_elimination(console: Console, ranking: Ranking, grades: Mapping[str, int]) -> None:
    """Prints an elimination step by step: the candidates, each thought and exclusion, and the order it led to."""
    candidates = ranking.request.candidates
    console.rule("one elimination, step by step")
    _print(console, f"Query {ranking.request.query_id}: {ranking.request.query}")
    _print(console, f"\n{LEGEND}\n\nBM25's order:")
    for place, candidate in enumerate(candidates, start=1):
        _print(console, f"  {place:2}. {candidate.id}  {candidate.text}")
    for number, step in enumerate(ranking.steps, start=1):
        console.print()
        shown = ", ".join(f"[{place}] {candidates[position].id}" for place, position in enumerate(step.shown, start=1))
        _print(console, f"Step {number} of {len(ranking.steps)}: {shown}")
        for line in step.thought.strip().splitlines():
            _print(console, f"    {line}")
        _print(console, f"  {_exclusion(step, ranking)}")
    console.print("\nThe exclusions in reverse are the ranking (grade 3 answers the query, 0 does not):")
    for place, position in enumerate(ranking.order, start=1):
        doc_id = candidates[position].id
        graded = f"grade {grades[doc_id]}" if doc_id in grades else "not judged"
        _print(console, f"  {place:2}. {doc_id}  {graded:10}  (BM25: {position + 1})")


def _exclusion(step: Step, ranking: Ranking) -> str:
    [excluded] = step.outcome
    identifier = f"[{step.shown.index(excluded) + 1}]"
    said = f"excluded: {identifier}, passage {ranking.request.candidates[excluded].id}"
    if step.probabilities is not None:
        said += f", probability {step.probabilities[excluded]:.2f}"
    return said + (" (the answer was repaired)" if step.repaired else "")


def _print(console: Console, line: str) -> None:
    # Texts and thoughts hold square brackets, which rich would take for markup.
    console.print(line, markup=False, highlight=False)


def _means(qrels: Sequence[Qrel], run: Run) -> dict[str, float]:
    return {str(measure): value for measure, value in evaluate(qrels, run, parse_measures(MEASURES)).mean.items()}
