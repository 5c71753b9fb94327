"""Runs a suite: each data set through a first stage and a reranker, into one folder that says all about it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.data.corpora import TEST_SPLIT, open_corpus
from r1ranker_ir.data.request_files import write_requests
from r1ranker_ir.data.trec_runs import read_run, write_run
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import (
    BackendError,
    CheckpointError,
    FailedRankingsError,
    InputError,
    R1RankerError,
    StorageError,
)
from r1ranker_ir.eval.measuring.measures import evaluate, parse_measures
from r1ranker_ir.eval.output.manifest import ranker_settings, unopened_settings
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.files.locks import folder_lock, make_output_folder
from r1ranker_ir.files.paths import NamedFile, check_folder, check_outputs, corpus_inputs
from r1ranker_ir.retrieval.first_stages import parse_first_stage
from r1ranker_ir.runs.reranking import RankerSource, RequestSource, ranker_inputs, rerank_run

from .baselines import FOLDER as BASELINES
from .baselines import first_choices
from .data import JudgedQueries, JudgedRunSource, checksums, read_judged_queries, search_first_stage
from .folder import MANIFEST, MEASURES, REPORT, claim_folder, write_summaries
from .requests import RequestFileSource, read_dataset_requests, request_checksums
from .results import FIRST_STAGE_RUN, REQUESTS, RERANKED_RUN, TRACES, DataSetResult, SuiteSettings
from .routers import CASCADE_RUN, ROUTER_RUN, check_router, latency, note_leads, route, write_routed
from .tables import DataSet, Suite, needs_of

if TYPE_CHECKING:
    from r1ranker_ir.rankers.ranker import Ranker

logger = logging.getLogger(__name__)

PREBUILT_BM25 = "pyserini:bm25"
"""The first stage that stands for each data set's own prebuilt BM25 index."""
_PLACEHOLDER = "{dataset}"
# Errors that the next data set would meet as well.
_CONCERN_ALL = (BackendError, CheckpointError, StorageError)
# Python writes an object's address into some messages of other libraries, another one in every process.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def run_suite(
    suite: Suite,
    ranker: RankerSource,
    output: str | Path,
    settings: SuiteSettings,
    *,
    overwrite: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = logger.info,
) -> list[DataSetResult]:
    """Runs a suite's data sets one after the other and writes what comes out.

    The folder holds `manifest.json`, `measures.json` and `README.md`, and for each data set a folder with its
    first stage's run (of ranking requests: the requests and the baselines' runs), the reranked run and perhaps
    traces. The three files are written anew after each data set, and a data set that fails leaves the others. The
    same command over the same data writes the same bytes again.
    """
    check_router(settings)
    plans = [_plan(dataset, suite, settings) for dataset in suite.datasets]
    folder = Path(output)
    read = list(ranker_inputs(ranker))
    # The cache, which may lie anywhere else, is not a file that a suite writes anew.
    cache = [named for named in read if named.option == "--cache"]
    check_folder(folder, "--output", (*_inputs(plans), *(named for named in read if named not in cache)))
    check_outputs([NamedFile("--output", folder / name) for name in (MANIFEST, MEASURES, REPORT)], cache)
    for plan in plans:
        check_folder(folder / plan.dataset.name, "--output", cache)
    results: list[DataSetResult] = []
    with folder_lock(folder, "--output", private=settings.traces):
        claim_folder(folder, suite, settings, overwrite=overwrite)
        for plan in plans:
            say(f"{plan.dataset.name} needs: {needs_of(plan.dataset, plan.first_stage)}")
        shared: dict[int | None, _SharedRanker] = {}
        for plan in plans:
            source = _source_for(plan.dataset, ranker, shared)
            error = _run_dataset(plan, folder / plan.dataset.name, source, settings, progress=progress, say=say)
            results.append(plan)
            write_summaries(folder, suite, settings, ranker, results)
            say(_outcome(plan))
            if isinstance(error, _CONCERN_ALL) and not isinstance(error, FailedRankingsError):
                raise error
    return results


def _inputs(plans: Sequence[DataSetResult]) -> Iterator[NamedFile]:
    """The files that hold the data."""
    for plan in plans:
        yield from corpus_inputs("the corpus", plan.dataset.corpus)
        if plan.first_stage:
            stage = parse_first_stage(plan.first_stage)
            if stage.source and Path(stage.source).exists():
                yield NamedFile("--first-stage", stage.source)


class _SharedRanker(RankerSource):
    """Opens its ranker once, however many data sets ask for it."""

    opened: Ranker | None = None

    def open(self, *, progress: bool = False) -> Ranker:
        if self.opened is None:
            object.__setattr__(self, "opened", super().open(progress=progress))
        assert self.opened is not None
        return self.opened


def _plan(dataset: DataSet, suite: Suite, settings: SuiteSettings) -> DataSetResult:
    """A data set that is not run yet: its measures and its first stage. A mistake in either ends the command."""
    measured = dataset.model_copy(update={"measures": settings.measures or dataset.measures})
    parse_measures(measured.measures)
    if dataset.is_of_requests:
        return DataSetResult(measured, "")
    text = settings.first_stage or suite.first_stage
    if text == PREBUILT_BM25:
        if dataset.index is None:
            raise InputError(
                f"first stage {text!r} stands for a data set's prebuilt index, and {dataset.name!r} has none: use "
                f"bm25s, pyserini:INDEX with an index of it, or run:FILE"
            )
        text = f"pyserini:{dataset.index}"
    text = text.replace(_PLACEHOLDER, dataset.name)
    parse_first_stage(text)
    return DataSetResult(measured, text)


def _source_for(dataset: DataSet, ranker: RankerSource, shared: dict[int | None, _SharedRanker]) -> RankerSource:
    """The ranker with the data set's passage length, where the caller names none; the same one for equal lengths."""
    own = ranker.settings.max_passage_tokens
    limit = dataset.max_passage_tokens if own is None else own
    if limit not in shared:
        shared.clear()  # two models at once may not fit into memory
        told = ranker.settings.having(max_passage_tokens=limit)
        shared[limit] = _SharedRanker(ranker.model, ranker.strategy, ranker.options, told)
    return shared[limit]


def _run_dataset(
    result: DataSetResult,
    folder: Path,
    ranker: RankerSource,
    settings: SuiteSettings,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> R1RankerError | None:
    """Runs one data set as far as it goes; gives the error that ended it."""
    find = _compare_baselines if result.dataset.is_of_requests else _search
    try:
        judged = find(result, folder, settings, progress=progress)
        _rerank(result, judged, folder, ranker, settings, progress=progress)
        if settings.router is not None and result.requests is not None:
            say(_route(result, judged, folder, settings))
    except R1RankerError as error:
        logger.error("%s: %s", result.dataset.name, error)
        found = result.evaluations or result.dataset.is_of_requests
        result.failed = _ADDRESS.sub("", str(error))
        result.failed += (
            "" if found else f". {result.dataset.name} needs: {needs_of(result.dataset, result.first_stage)}"
        )
        return error
    return None


def _search(result: DataSetResult, folder: Path, settings: SuiteSettings, *, progress: bool) -> JudgedQueries:
    """Reads the data, has the first stage search, and measures it."""
    dataset = result.dataset
    corpus = open_corpus(dataset.corpus, dataset.split)
    judged = read_judged_queries(corpus, dataset, settings.queries)
    first_stage = parse_first_stage(result.first_stage)
    found = search_first_stage(first_stage, corpus, judged, settings.depth, progress=progress)
    make_output_folder(folder, "--output", private=settings.traces, error=StorageError)
    write_run(found, folder / FIRST_STAGE_RUN, tag=first_stage.kind)
    digests = checksums(corpus, dataset.split or TEST_SPLIT, judged, found)
    if first_stage.declared.reads_file:
        digests["first_stage_run"] = file_digest(Path(first_stage.source))
    result.judged, result.asked, result.checksums = judged.judged, len(judged.topics), digests
    _evaluate(result, judged, folder, FIRST_STAGE_RUN)
    return judged


def _compare_baselines(
    result: DataSetResult, folder: Path, settings: SuiteSettings, *, progress: bool
) -> JudgedQueries:
    """Reads ranking requests, and measures the orders that need no model."""
    measures = parse_measures(result.dataset.measures)
    judged, result.requests = read_dataset_requests(result.dataset, measures, settings.queries)
    result.judged, result.asked = judged.judged, len(judged.topics)
    for each in (folder, folder / BASELINES):
        make_output_folder(each, "--output", private=settings.traces, error=StorageError)
    write_requests(folder / REQUESTS, judged.requests)
    result.checksums = request_checksums(result.dataset, folder / REQUESTS)
    for baseline in result.requests.baselines:
        if baseline.run is not None:
            write_run(baseline.run, folder / baseline.file, tag=Path(baseline.file).stem)
            _evaluate(result, judged, folder, baseline.file)
    return judged


def _rerank(
    result: DataSetResult,
    judged: JudgedQueries,
    folder: Path,
    ranker: RankerSource,
    settings: SuiteSettings,
    *,
    progress: bool,
) -> None:
    """Reranks what the first stage has found, and measures it."""
    if settings.cluster is None or not ranker.settings.declared_backend.capabilities.reads_checkpoint:
        opened = ranker.open(progress=progress)
        described, before = ranker_settings(opened), opened.summary
    else:
        described, before = unopened_settings(ranker), RunSummary()
    summary = rerank_run(
        _candidates(result.dataset, folder, settings),
        ranker,
        folder / RERANKED_RUN,
        tag="_".join(settings.reranker.split()),
        traces=folder / TRACES if settings.traces else None,
        progress=progress,
        cluster=settings.cluster,
    )
    _evaluate(result, judged, folder, RERANKED_RUN)
    result.ranker, result.summary = described, summary.since(before)


def _route(result: DataSetResult, judged: JudgedQueries, folder: Path, settings: SuiteSettings) -> str:
    """Measures the router, and the cascade with what was reranked; gives their latency in words."""
    source = RequestFileSource(str((folder / REQUESTS).resolve()), settings.shuffle)
    routed = route(source.requests().listed, read_run(folder / RERANKED_RUN), settings)
    write_routed(routed, result, folder, settings)
    for file in (ROUTER_RUN, CASCADE_RUN):
        _evaluate(result, judged, folder, file)
    note_leads(judged.requests, result, folder, settings)
    return latency(routed, result)


def _candidates(dataset: DataSet, folder: Path, settings: SuiteSettings) -> RequestSource:
    if dataset.is_of_requests:
        return RequestFileSource(str((folder / REQUESTS).resolve()), settings.shuffle)
    run = str(folder / FIRST_STAGE_RUN)
    return JudgedRunSource(dataset.corpus, run, settings.depth, None, settings.missing, settings.shuffle)


def _evaluate(result: DataSetResult, judged: JudgedQueries, folder: Path, name: str) -> None:
    """Measures one of its runs, as it was written."""
    run = read_run(folder / name)
    measured = {query_id: entries for query_id, entries in run.items() if query_id in judged.topics}
    measures = parse_measures(result.dataset.measures)
    result.evaluations[name] = evaluate(judged.qrels, measured, measures, name=f"{result.dataset.name}/{name}")
    if result.requests is not None:
        result.requests.choices[name] = first_choices(judged.requests, run)


def _outcome(result: DataSetResult) -> str:
    """A line about a finished data set, for people: with seconds, which no file holds."""
    if result.summary is None:
        return f"{result.dataset.name}: failed"
    figures, summary = [], result.summary
    for name, evaluation in result.evaluations.items():
        if not name.startswith(f"{BASELINES}/"):
            measure, value = next(iter(evaluation.mean.items()))
            figures.append(f"{measure} {value:.4f} ({name.removesuffix('.trec')})")
    cached = f", {summary.cached_calls} of them cached" if summary.cached_calls else ""
    calls = f"{summary.usage.calls} calls{cached}, {summary.seconds:.1f} seconds"
    return f"{result.dataset.name}: {', '.join(figures)}; {calls}"
