"""Rankers side by side on a judged corpus, on equal terms: measures beside calls, tokens and seconds."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.qrels import gains_of
from r1ranker_ir.data.trec_runs import Run, write_run
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.eval.measuring.comparison import Comparison, ComparisonSettings, check_comparable, compare_runs
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
    from ir_measures import Measure

logger = logging.getLogger(__name__)

RUNS = "runs"
"""The folder of the runs within that of the results."""

Gains = Mapping[str, Mapping[str, float]]
"""Query id to document id to gain."""


@dataclass(frozen=True)
class Contender:
    """One ranker, opened when its turn has come."""

    name: str
    kind: str  # its strategy, or cascade
    open: Callable[[Gains], Ranker | Cascade]
    budget: Mapping[str, int] = field(default_factory=dict)  # max_calls and max_tokens, as far as there are any


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
    folder: Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] = logger.info,
) -> ShootoutResult:
    """Compares the rerankers of a list with the first stage; one that fails leaves the others.

    Raises the first one's error if all fail. `say` is told which one is at work.
    """
    contenders = [_contender(entry, terms, progress=progress) for entry in entries]
    return run_contenders(contenders, terms, folder=folder, say=say)


def run_contenders(
    contenders: Sequence[Contender],
    terms: EqualTerms,
    *,
    baseline: str = FIRST_STAGE,
    folder: Path | None = None,
    say: Callable[[str], None] = logger.info,
) -> ShootoutResult:
    """Has rankers rank the same candidates one after the other, and compares them with the baseline.

    A run is written into the folder as soon as it is finished. With a ranker for the baseline, an error is raised at
    once, as nothing could be compared without it.
    """
    check_comparable(terms.measures)
    requests = _judged_requests(terms.source)
    ranked = {request.query_id for request in requests}
    qrels = [judgment for judgment in open_corpus(terms.source.corpus).qrels() if judgment.query_id in ranked]
    gains, evaluations, calls = gains_of(qrels), dict[str, Evaluation](), dict[str, float]()

    def measure(name: str, rankings: Iterable[Ranking], summary: RunSummary) -> None:
        run = _run_of(rankings)
        if folder is not None:
            _write(folder, name, run)
        evaluations[name] = evaluate(qrels, run, terms.measures, name=name)
        calls[name] = summary.usage.calls / len(requests)

    if baseline == FIRST_STAGE:
        as_it_was = (Ranking(each, tuple(range(len(each.candidates)))) for each in requests)
        measure(FIRST_STAGE, as_it_was, RunSummary())
    rows: list[ShootoutRow] = []
    failures: list[R1RankerError] = []
    for each in contenders:
        say(each.name)
        try:
            row, rankings = _run_one(each, requests, gains)
        except R1RankerError as error:
            if baseline != FIRST_STAGE:
                raise
            kept = "" if folder is None else _keep_finished(folder, each.name, error)
            rows.append(ShootoutRow(each.name, each.kind, each.budget, failed=f"{error}{kept}"))
            failures.append(error)
            continue
        rows.append(row)
        measure(each.name, rankings, row.summary or RunSummary())
    if len(failures) == len(rows):
        raise failures[0]
    comparison = compare_runs(evaluations, baseline, ComparisonSettings(seed=terms.seed), calls=calls)
    return ShootoutResult(tuple(rows), comparison, terms, len(requests))


def _run_one(
    contender: Contender, requests: Sequence[RankingRequest], gains: Gains
) -> tuple[ShootoutRow, list[Ranking]]:
    """Opens a ranker, has it rank, and lets it go again: two models at once may not fit into memory."""
    ranker = contender.open(gains)
    started = time.perf_counter()
    rankings = ranker.rank(requests)
    seconds, ended = time.perf_counter() - started, sum(ranking.budget_reached for ranking in rankings)
    name, kind, budget = contender.name, contender.kind, contender.budget
    return ShootoutRow(name, kind, budget, ranker.summary, seconds, ended, _described(ranker)), rankings


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


def _contender(entry: Entry | CascadeEntry, terms: EqualTerms, *, progress: bool) -> Contender:
    limits = {name: (getattr(terms, name), entry.options.get(name)) for name in ("max_calls", "max_tokens")}
    known = {name: [each for each in pair if each is not None] for name, pair in limits.items()}
    budget = {name: min(given) for name, given in known.items() if given}

    def open_one(each: Entry, gains: Gains, **own: int) -> Ranker:
        options: dict[str, Any] = {"seed": terms.seed, **each.options, **own}
        if options.get("backend") == ORACLE:
            options["gains"] = gains
        return Ranker(each.model, strategy=each.strategy, progress=progress, **options)

    def open_cascade(each: CascadeEntry, gains: Gains) -> Cascade:
        # What holds for all holds for both together.
        return Cascade(open_one(each.first, gains), open_one(each.second, gains), depth=each.depth, **budget)

    if isinstance(entry, CascadeEntry):
        return Contender(entry.name, CASCADE, partial(open_cascade, entry), budget)
    return Contender(entry.name, entry.strategy, partial(open_one, entry, **budget), budget)


def _keep_finished(folder: Path, name: str, error: R1RankerError) -> str:
    """Writes what a ranker had finished when it failed, which may have been paid for; says where."""
    run = _run_of(ranking for ranking in error.rankings if ranking is not None)
    if not run:
        return ""
    path = _write(folder, name, run, ending=".partial")
    return f"\nThe {len(run)} finished queries are kept in {path}"


def _write(folder: Path, name: str, run: Run, ending: str = "") -> Path:
    runs = folder / RUNS
    try:
        runs.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"can't make folder {str(runs)!r}: {error.strerror}: choose another --output") from error
    path = runs / f"{run_file(name)}{ending}"
    write_run(run, path, tag=Path(run_file(name)).stem)
    return path
