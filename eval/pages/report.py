"""The report: runs side by side, queries to sort, and each ranking as it happened, in one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.corpora import Corpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.trec_runs import Run
from r1ranker_ir.errors import InputError, MissingExtraError
from r1ranker_ir.eval.measuring.comparison import Comparison, check_comparable, compare_runs
from r1ranker_ir.eval.measuring.measures import Evaluation, common_queries, evaluate
from r1ranker_ir.eval.output.comparison_report import differences_sheet, means_sheet, notes
from r1ranker_ir.eval.output.sheets import measures_sheet
from r1ranker_ir.eval.pages.chunks import packed
from r1ranker_ir.eval.pages.page import Section, page_of
from r1ranker_ir.eval.pages.queries import QueryCandidates, add_texts, add_top
from r1ranker_ir.eval.pages.settings import ReportSettings
from r1ranker_ir.eval.pages.sources import Sources, TraceNotes, sources_of
from r1ranker_ir.eval.pages.traced import traced_data
from r1ranker_ir.files.terminal_text import visible
from r1ranker_ir.runs.requests import CHUNK_QUERIES
from r1ranker_ir.runs.traces import TracedRanking

if TYPE_CHECKING:
    from ir_measures import Measure, Qrel

_QUERY_CHARACTERS = 200


def build_report(
    corpus: Corpus,
    runs: Mapping[str, Run],
    traces: Mapping[str, Iterable[TracedRanking]],
    settings: ReportSettings,
    *,
    measures: Sequence[Measure],
    only_run_queries: bool = False,
    qrels: Sequence[Qrel] | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """Makes the page.

    Args:
        corpus: its queries, texts and judgments.
        runs: by name, the baseline first.
        traces: rankings as they happened, by the names of their files.
        settings: how much is shown.
        measures: the first one sorts the queries.
        only_run_queries: count only the judged queries that all runs have.
        qrels: judgments in place of the corpus's own.
        sections: what else is to stand below.
    """
    check_comparable(measures)
    judgments = list(corpus.qrels() if qrels is None else qrels)
    queries: dict[str, QueryCandidates] = {}
    pieces: dict[tuple[int, str], str] = {}
    told = [
        _passed(number, name, rankings, queries, pieces, settings.characters)
        for number, (name, rankings) in enumerate(traces.items())
    ]
    sources = sources_of(runs, told)
    evaluations, judged = _evaluations(judgments, sources.runs, measures, only_run_queries)
    topics = corpus.queries()
    shown = dict.fromkeys((*next(iter(evaluations.values())).per_query, *queries))
    for query_id in shown:
        candidates = queries.setdefault(query_id, QueryCandidates(topics.get(query_id, "")))
        add_top(candidates, query_id, sources.runs.values(), settings.depth)
    grades = gains_of(judgments)
    for some in (list(shown)[start : start + CHUNK_QUERIES] for start in range(0, len(shown), CHUNK_QUERIES)):
        found = [queries[query_id] for query_id in some]
        wanted = dict.fromkeys(doc_id for each in found for doc_id in each.without_text)
        add_texts(found, corpus.documents(wanted), settings.characters)
    numbers = {query_id: number for number, query_id in enumerate(shown)}
    chunks = {
        f"q{number}": packed(queries[query_id].data(query_id, sources.runs.values(), grades.get(query_id)))
        for query_id, number in numbers.items()
    }
    for (trace, query_id), piece in pieces.items():
        chunks[f"t{trace}-{numbers[query_id]}"] = piece
    overview = _overview(sources, told, evaluations, measures, queries, list(shown))
    return page_of([*_summary(evaluations, judged)], overview, chunks, sections)


def _passed(
    number: int,
    name: str,
    rankings: Iterable[TracedRanking],
    queries: dict[str, QueryCandidates],
    pieces: dict[tuple[int, str], str],
    characters: int,
) -> TraceNotes:
    """Takes in a trace, ranking by ranking, so that only what the page shows is kept."""
    told = TraceNotes(name)
    for traced in told.take(rankings):
        request = traced.ranking.request
        candidates = queries.setdefault(request.query_id, QueryCandidates(request.query))
        places = candidates.add(traced.ranking, characters)
        pieces[number, request.query_id] = packed(traced_data(traced, places, candidates.texts, characters))
    if not told.after:
        raise InputError(f"trace {name!r} is empty: give the trace of a run that has finished queries")
    return told


def _evaluations(
    qrels: list[Qrel], runs: Mapping[str, Run], measures: Sequence[Measure], only_run_queries: bool
) -> tuple[dict[str, Evaluation], int | None]:
    judged = None
    if only_run_queries:
        qrels, runs, judged = common_queries(qrels, runs)
    return {name: evaluate(qrels, run, measures, name=name) for name, run in runs.items()}, judged


def _summary(evaluations: Mapping[str, Evaluation], judged: int | None) -> Iterator[Section]:
    if len(evaluations) == 1:
        yield Section("Measures", (measures_sheet(evaluations),), ("One run: there is nothing to compare it with.",))
        return
    baseline = next(iter(evaluations))
    try:
        compared: Comparison = compare_runs(evaluations, baseline, judged=judged)
    except MissingExtraError as error:
        yield Section("Measures", (measures_sheet(evaluations),), (f"Without intervals and tests: {error}.",))
        return
    yield Section("Measures", (means_sheet(compared), differences_sheet(compared)), tuple(notes(compared)))


def _overview(
    sources: Sources,
    traces: Sequence[TraceNotes],
    evaluations: Mapping[str, Evaluation],
    measures: Sequence[Measure],
    queries: Mapping[str, QueryCandidates],
    query_ids: Sequence[str],
) -> dict[str, Any]:
    """What the table of queries is made from."""
    runs = []
    for name in sources.runs:
        trace = sources.trace_of.get(name)
        runs.append({"name": visible(name), "trace": None if trace is None else traces.index(trace)})
    rows = []
    for query_id in query_ids:
        values = [
            None if (row := each.per_query.get(query_id)) is None else [round(row[measure], 6) for measure in measures]
            for each in evaluations.values()
        ]
        costs = [trace.costs.get(query_id) for trace in traces]
        text = visible(" ".join(queries[query_id].query.split()))
        cut = text if len(text) <= _QUERY_CHARACTERS else f"{text[:_QUERY_CHARACTERS]}…"
        rows.append({"id": visible(query_id), "query": cut, "values": values, "costs": costs})
    return {"measures": [str(measure) for measure in measures], "runs": runs, "queries": rows}
