"""Rankers side by side on a judged corpus, on equal terms: measures beside calls, tokens and seconds."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.trec_runs import Run, write_run
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.eval.measuring.comparison import Comparison, check_comparable, compare_runs
from r1ranker_ir.eval.measuring.measures import Evaluation, evaluate
from r1ranker_ir.eval.measuring.settings import ComparisonSettings
from r1ranker_ir.eval.output.manifest import ranker_settings
from r1ranker_ir.files.locks import make_output_folder
from r1ranker_ir.rankers.cascade import Cascade
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.runs.requests import entries_of
from r1ranker_ir.runs.reranking import RunSource
from r1ranker_ir.runs.traces import CASCADE
from r1ranker_ir.types import Ranking, RankingRequest

from .entries import FIRST_STAGE, ORACLE, CascadeEntry, Entry, run_file

if TYPE_CHECKING:
    from ir_measures import Measure

logger = logging.getLogger(__name__)

RUNS = "runs"
"""The folder of the runs within that of the results."""


@dataclass(frozen=True)
class EqualTerms:
    """What holds for all rankers alike; a smaller budget of a ranker's own holds too."""

    source: RunSource  # of its queries only the judged ones are ranked
    measures: tuple[Measure, ...]
    max_calls: int | None = None  # per query
    max_tokens: int | None = None  # read and written, per query
    seed: int = 0  # of noise, sampling and intervals, where a ranker names none


@dataclass(frozen=True)
class ShootoutRow:
    """What became of one ranker."""

    name: str
    kind: str
    budget: Mapping[str, int]
    summary: RunSummary | None = None  # None if it failed
    seconds: float = 0.0  # from the first query to the last
    ended: int = 0  # queries whose budget was reached
    settings: Mapping[str, Any] | None = None
    failed: str = ""  # why


@dataclass(frozen=True)
class ShootoutResult:
    """A finished shoot-out."""

    rows: tuple[ShootoutRow, ...]  # in the order of the rankers
    comparison: Comparison  # of those that did not fail, by name
    terms: EqualTerms
    queries: int  # how many were ranked


def run_shootout(
    entries: Sequence[Entry | CascadeEntry],
    terms: EqualTerms,
    *,
    baseline: str = FIRST_STAGE,
    folder: Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] = logger.info,
    keep: Callable[[ShootoutResult], None] | None = None,
) -> ShootoutResult:
    """Has rankers rank the same candidates one after the other, and compares them with the baseline.

    One that fails leaves the others, unless one of them is the baseline; the first one's error is raised if all fail. A
    run is written into the folder as soon as it is finished. `say` is told which ranker is at work, and `keep` gets the
    result so far behind each ranker, so that a kill loses one ranker's work alone.
    """
    check_comparable(terms.measures)
    requests = _judged_requests(terms.source)
    ranked = {request.query_id for request in requests}
    qrels = [judgment for judgment in open_corpus(terms.source.corpus).qrels() if judgment.query_id in ranked]
    gains, evaluations = gains_of(qrels), dict[str, Evaluation]()

    def measure(name: str, rankings: Iterable[Ranking]) -> None:
        run = _run_of(rankings)
        if folder is not None:
            _write(folder, name, run)
        evaluations[name] = evaluate(qrels, run, terms.measures, name=name)

    if baseline == FIRST_STAGE:
        measure(FIRST_STAGE, (Ranking(each, tuple(range(len(each.candidates)))) for each in requests))
    rows: list[ShootoutRow] = []
    failures: list[R1RankerError] = []

    def so_far() -> ShootoutResult:
        comparison = compare_runs(evaluations, baseline, ComparisonSettings(seed=terms.seed))
        return ShootoutResult(tuple(rows), comparison, terms, len(requests))

    for entry in entries:
        say(entry.name)
        kind = CASCADE if isinstance(entry, CascadeEntry) else entry.strategy
        row = ShootoutRow(entry.name, kind, _budget(entry, terms))
        try:
            row, rankings = _run_one(row, entry, requests, {"seed": terms.seed, "progress": progress}, gains)
        except R1RankerError as error:
            if baseline != FIRST_STAGE:
                raise
            kept = "" if folder is None else _keep_finished(folder, entry.name, error)
            rows.append(replace(row, failed=f"{error}{kept}"))
            failures.append(error)
            continue
        rows.append(row)
        measure(entry.name, rankings)
        if keep is not None and baseline in evaluations:
            keep(so_far())
    if len(failures) == len(rows):
        raise failures[0]
    return so_far()


def _budget(entry: Entry | CascadeEntry, terms: EqualTerms) -> dict[str, int]:
    limits = {name: (getattr(terms, name), entry.options.get(name)) for name in ("max_calls", "max_tokens")}
    known = {name: [each for each in pair if each is not None] for name, pair in limits.items()}
    return {name: min(given) for name, given in known.items() if given}


def _run_one(
    row: ShootoutRow,
    entry: Entry | CascadeEntry,
    requests: Sequence[RankingRequest],
    common: Mapping[str, Any],
    gains: Mapping[str, Mapping[str, float]],
) -> tuple[ShootoutRow, list[Ranking]]:
    """Opens a ranker, has it rank, and lets it go again: two models at once may not fit into memory."""

    def opened(each: Entry, **own: Any) -> Ranker:
        known = {"gains": gains} if each.options.get("backend") == ORACLE else {}
        return Ranker(each.model, strategy=each.strategy, **{**common, **each.options, **known, **own})

    ranker: Ranker | Cascade
    if isinstance(entry, CascadeEntry):
        # What holds for all holds for both together.
        ranker = Cascade(opened(entry.first), opened(entry.second), depth=entry.depth, **row.budget)
    else:
        ranker = opened(entry, **row.budget)
    started = time.perf_counter()
    rankings = ranker.rank(requests)
    seconds, ended = time.perf_counter() - started, sum(ranking.budget_reached for ranking in rankings)
    return replace(row, summary=ranker.summary, seconds=seconds, ended=ended, settings=_described(ranker)), rankings


def _described(ranker: Ranker | Cascade) -> dict[str, Any]:
    if isinstance(ranker, Ranker):
        return ranker_settings(ranker)
    first, second = ranker_settings(ranker.first), ranker_settings(ranker.second)
    return {"first": first, "second": second, "depth": ranker.depth}


def _judged_requests(source: RunSource) -> list[RankingRequest]:
    """The first of the queries that have judgments: others would cost calls and count for nothing."""
    judged = {judgment.query_id for judgment in open_corpus(source.corpus).qrels()}
    whole = RunSource(source.corpus, source.run, source.depth, missing=source.missing)
    found = (request for request in whole.requests() if request.query_id in judged)
    requests = list(itertools.islice(found, source.queries))
    if not requests:
        raise InputError(f"corpus {source.corpus!r} judges none of the queries of {source.run!r}: is it a run of it?")
    return requests


def _run_of(rankings: Iterable[Ranking]) -> Run:
    return {ranking.request.query_id: entries_of(ranking) for ranking in rankings}


def _keep_finished(folder: Path, name: str, error: R1RankerError) -> str:
    """Writes what a ranker had finished when it failed, which may have been paid for; says where."""
    run = _run_of(ranking for ranking in error.rankings if ranking is not None)
    if not run:
        return ""
    path = _write(folder, name, run, ending=".partial")
    return f"\nThe {len(run)} finished queries are kept in {path}"


def _write(folder: Path, name: str, run: Run, ending: str = "") -> Path:
    runs = folder / RUNS
    make_output_folder(runs, "--output")
    path = runs / f"{run_file(name)}{ending}"
    write_run(run, path, tag=Path(run_file(name)).stem)
    return path
