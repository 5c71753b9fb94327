"""Rerankers side by side: the same corpus, run, depth, seed and budget for each."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.trec_runs import RunEntry, write_run
from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.eval.measuring.comparison import Comparison, ComparisonSettings, check_comparable, compare_runs
from r1ranker_ir.eval.measuring.judged_rows import CostRow, gains_of, judgments_of, rank_timed
from r1ranker_ir.eval.measuring.measures import Evaluation, evaluate
from r1ranker_ir.eval.output.manifest import ranker_settings
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.requests import entries_of
from r1ranker_ir.runs.reranking import RunSource
from r1ranker_ir.runs.traces import CASCADE
from r1ranker_ir.types import Ranking, RankingRequest

from .entries import FIRST_STAGE, ORACLE, CascadeEntry, Entry, run_file

if TYPE_CHECKING:
    from ir_measures import Measure, Qrel

logger = logging.getLogger(__name__)

RUNS = "runs"
"""The folder of the runs within that of the results."""


@dataclass(frozen=True)
class EqualTerms:
    """What holds for all rerankers alike."""

    source: RunSource  # corpus, run and depth; of its queries only the judged ones are ranked
    measures: tuple[Measure, ...]  # what counts
    max_calls: int | None = None  # what each may make for a query; a smaller number of its own holds
    max_tokens: int | None = None  # what these may read and write together; a smaller number of its own holds
    seed: int = 0  # of noise, sampling and intervals, where a reranker names none


@dataclass(frozen=True)
class ShootoutRow:
    """What became of one reranker."""

    name: str  # its name
    kind: str  # its strategy, or cascade
    budget: Mapping[str, int]  # its max_calls and max_tokens, as far as there are any
    cost: CostRow | None = None  # what it took; None if it failed
    ended: int = 0  # of how many queries the budget was reached
    settings: Mapping[str, Any] | None = None  # what it was, for the record
    failed: str = ""  # why it failed; empty if it did not


@dataclass(frozen=True)
class ShootoutResult:
    """A finished shoot-out."""

    rows: tuple[ShootoutRow, ...]  # of the rerankers, in their order
    comparison: Comparison  # of those that did not fail with the first stage, by name
    terms: EqualTerms  # what held for all
    queries: int  # how many were ranked


def run_shootout(
    entries: Sequence[Entry | CascadeEntry],
    terms: EqualTerms,
    *,
    folder: Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] = logger.info,
) -> ShootoutResult:
    """Has rerankers rank the same candidates one after the other, and measures them."""
    check_comparable(terms.measures)
    requests = _judged_requests(terms.source)
    qrels = judgments_of(terms.source.corpus, requests)
    as_it_was = {request.query_id: entries_of(Ranking(request, _all(request))) for request in requests}
    if folder is not None:
        _write(folder, FIRST_STAGE, as_it_was)
    evaluations = {FIRST_STAGE: evaluate(qrels, as_it_was, terms.measures, name=FIRST_STAGE)}
    calls: dict[str, float] = {FIRST_STAGE: 0.0}
    rows: list[ShootoutRow] = []
    failures: list[R1RankerError] = []
    for entry in entries:
        say(entry.name)
        try:
            row, run = _run_entry(entry, terms, requests, qrels, progress=progress)
        except R1RankerError as error:
            kept = "" if folder is None else _keep_finished(folder, entry.name, error)
            rows.append(ShootoutRow(entry.name, _kind(entry), _budget(entry, terms), failed=f"{error}{kept}"))
            failures.append(error)
            continue
        if folder is not None:
            _write(folder, row.name, run)
        evaluations[row.name] = evaluate(qrels, run, terms.measures, name=row.name)
        assert row.cost is not None
        calls[row.name] = row.cost.summary.usage.calls / len(requests)
        rows.append(row)
    if len(failures) == len(rows):
        raise failures[0]
    comparison = _compare(evaluations, calls, terms)
    return ShootoutResult(tuple(rows), comparison, terms, len(requests))


def _compare(evaluations: Mapping[str, Evaluation], calls: Mapping[str, float], terms: EqualTerms) -> Comparison:
    return compare_runs(evaluations, FIRST_STAGE, ComparisonSettings(seed=terms.seed), calls=calls)


def _judged_requests(source: RunSource) -> list[RankingRequest]:
    """The first so many of the queries that have judgments: others would cost calls and count for nothing."""
    judged = {judgment.query_id for judgment in open_corpus(source.corpus).qrels()}
    whole = RunSource(source.corpus, source.run, source.depth, missing=source.missing)
    found = (request for request in whole.requests() if request.query_id in judged)
    requests = list(itertools.islice(found, source.queries))
    if not requests:
        raise InputError(f"corpus {source.corpus!r} judges none of the queries of {source.run!r}: is it a run of it?")
    return requests


def _all(request: RankingRequest) -> tuple[int, ...]:
    return tuple(range(len(request.candidates)))


def _run_entry(
    entry: Entry | CascadeEntry,
    terms: EqualTerms,
    requests: Sequence[RankingRequest],
    qrels: Iterable[Qrel],
    *,
    progress: bool,
) -> tuple[ShootoutRow, dict[str, tuple[RunEntry, ...]]]:
    """Opens a reranker, has it rank, and lets it go again: two models at once may not fit into memory."""
    budget = _budget(entry, terms)
    gains = gains_of(qrels)
    ranker: Ranker | Cascade
    if isinstance(entry, CascadeEntry):
        # What holds for all holds for both together.
        first, second = (_open(each, terms, gains, {}, progress=progress) for each in (entry.first, entry.second))
        ranker = Cascade(first, second, depth=entry.depth, **budget)
        settings = {"first": ranker_settings(first), "second": ranker_settings(second), "depth": entry.depth}
    else:
        ranker = _open(entry, terms, gains, budget, progress=progress)
        settings = ranker_settings(ranker)
    cost, rankings = rank_timed(entry.name, ranker, requests)
    run = {ranking.request.query_id: entries_of(ranking) for ranking in rankings}
    ended = sum(ranking.budget_reached for ranking in rankings)
    return ShootoutRow(entry.name, _kind(entry), budget, cost, ended, settings), run


def _open(
    entry: Entry,
    terms: EqualTerms,
    gains: Mapping[str, Mapping[str, float]],
    budget: Mapping[str, int],
    *,
    progress: bool,
) -> Ranker:
    options: dict[str, Any] = {"seed": terms.seed, **entry.options, **budget}
    if options.get("backend") == ORACLE:
        options["gains"] = gains
    return Ranker(entry.model, strategy=entry.strategy, progress=progress, **options)


def _budget(entry: Entry | CascadeEntry, terms: EqualTerms) -> dict[str, int]:
    limits: dict[str, int] = {}
    for name, common in (("max_calls", terms.max_calls), ("max_tokens", terms.max_tokens)):
        given = [limit for limit in (common, entry.options.get(name)) if limit is not None]
        if given:
            limits[name] = min(given)
    return limits


def _kind(entry: Entry | CascadeEntry) -> str:
    return CASCADE if isinstance(entry, CascadeEntry) else entry.strategy


def _keep_finished(folder: Path, name: str, error: R1RankerError) -> str:
    """Writes what a reranker had finished when it failed, which may have been paid for; says where."""
    run = {ranking.request.query_id: entries_of(ranking) for ranking in error.rankings if ranking is not None}
    if not run:
        return ""
    path = _write(folder, name, run, ending=".partial")
    return f"\nThe {len(run)} finished queries are kept in {path}"


def _write(folder: Path, name: str, run: Mapping[str, tuple[RunEntry, ...]], ending: str = "") -> Path:
    runs = folder / RUNS
    try:
        runs.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"can't make folder {str(runs)!r}: {error.strerror}: choose another --output") from error
    path = runs / f"{run_file(name)}{ending}"
    write_run(run, path, tag=Path(run_file(name)).stem)
    return path
