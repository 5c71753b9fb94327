"""Runs a suite: each data set through a first stage and a reranker, into one folder that says all about it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
from r1ranker_ir.files.byte_sizes import in_units
from r1ranker_ir.files.digests import file_digest
from r1ranker_ir.files.locks import folder_lock, make_folder
from r1ranker_ir.files.paths import NamedFile, check_folder, check_outputs, corpus_inputs
from r1ranker_ir.retrieval.first_stages import parse_first_stage
from r1ranker_ir.runs.reranking import RankerSource, RequestSource, ranker_inputs, rerank_run

from .baselines import first_choices
from .data import JudgedQueries, JudgedRunSource, checksums, read_judged_queries, search_first_stage
from .folder import MANIFEST, MEASURES, REPORT, claim_folder, write_summaries
from .requests import RequestFileSource, read_dataset_requests, request_checksums
from .results import BASELINES, FIRST_STAGE_RUN, REQUESTS, RERANKED_RUN, TRACES, DataSetResult, SuiteSettings
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
    plans = [_plan(dataset, suite, settings) for dataset in suite.datasets]
    folder = Path(output)
    check_folder(folder, "--output", _inputs(plans, ranker))
    _check_cache(folder, plans, ranker)
    with folder_lock(folder, "--output", private=settings.traces):
        claim_folder(folder, suite, settings, overwrite=overwrite)
        return _run_plans(plans, suite, ranker, folder, settings, progress=progress, say=say)


def _check_cache(folder: Path, plans: Sequence[DataSetResult], ranker: RankerSource) -> None:
    """Refuses a cache that lies where the suite writes something else; elsewhere in its folder one may be."""
    named = [each for each in ranker_inputs(ranker) if each.option == "--cache"]
    check_outputs([NamedFile("--output", folder / name) for name in (MANIFEST, MEASURES, REPORT)], named)
    for plan in plans:
        check_folder(folder / plan.dataset.name, "--output", named)


def _inputs(plans: Sequence[DataSetResult], ranker: RankerSource) -> Iterator[NamedFile]:
    """The files that a suite reads; the cache, which may lie anywhere, is not one that it writes anew."""
    for plan in plans:
        yield from corpus_inputs("the corpus", plan.dataset.corpus)
        if plan.first_stage:
            stage = parse_first_stage(plan.first_stage)
            if stage.source and Path(stage.source).exists():
                yield NamedFile("--first-stage", stage.source)
    yield from (named for named in ranker_inputs(ranker) if named.option != "--cache")


def _run_plans(
    plans: Sequence[DataSetResult],
    suite: Suite,
    ranker: RankerSource,
    folder: Path,
    settings: SuiteSettings,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> list[DataSetResult]:
    for plan in plans:
        say(f"{plan.dataset.name} needs: {_needs(plan)}")
    shared: dict[int | None, _SharedRanker] = {}
    results: list[DataSetResult] = []
    for plan in plans:
        source = _source_for(plan.dataset, ranker, shared)
        result, error = _run_dataset(plan, folder / plan.dataset.name, source, settings, progress=progress)
        results.append(result)
        write_summaries(folder, suite, settings, ranker, results)
        say(_outcome(result))
        if isinstance(error, _CONCERN_ALL) and not isinstance(error, FailedRankingsError):
            raise error
    return results


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


def _needs(result: DataSetResult) -> str:
    return needs_of(result.dataset, with_index=result.first_stage == f"pyserini:{result.dataset.index}")


def _source_for(dataset: DataSet, ranker: RankerSource, shared: dict[int | None, _SharedRanker]) -> RankerSource:
    """The ranker with the data set's passage length, where the caller names none; the same one for equal lengths."""
    limit = ranker.settings.max_passage_tokens
    limit = dataset.max_passage_tokens if limit is None else limit
    if limit not in shared:
        shared.clear()  # two models at once may not fit into memory
        shared[limit] = _SharedRanker(
            ranker.model, ranker.strategy, ranker.options, ranker.settings.having(max_passage_tokens=limit)
        )
    return shared[limit]


def _run_dataset(
    result: DataSetResult, folder: Path, ranker: RankerSource, settings: SuiteSettings, *, progress: bool
) -> tuple[DataSetResult, R1RankerError | None]:
    """Runs one data set as far as it goes; gives the error that ended it too."""
    try:
        if result.dataset.is_of_requests:
            result, judged = _compare_baselines(result, folder, settings)
        else:
            result, judged = _search(result, folder, settings, progress=progress)
    except R1RankerError as error:
        needed = "" if result.dataset.is_of_requests else f". {result.dataset.name} needs: {_needs(result)}"
        return _failed(result, error, needed), error
    try:
        return _rerank(result, judged, folder, ranker, settings, progress=progress), None
    except R1RankerError as error:
        return _failed(result, error), error


def _search(
    result: DataSetResult, folder: Path, settings: SuiteSettings, *, progress: bool
) -> tuple[DataSetResult, JudgedQueries]:
    """Reads the data, has the first stage search, and measures it."""
    dataset = result.dataset
    corpus = open_corpus(dataset.corpus, dataset.split)
    judged = read_judged_queries(corpus, dataset, settings.queries)
    first_stage = parse_first_stage(result.first_stage)
    found = search_first_stage(first_stage, corpus, judged, settings.depth, progress=progress)
    _make(folder, private=settings.traces)
    write_run(found, folder / FIRST_STAGE_RUN, tag=first_stage.kind)
    evaluated = _evaluated(result, judged, folder, FIRST_STAGE_RUN)
    digests = checksums(corpus, dataset.split or TEST_SPLIT, judged, found)
    if first_stage.declared.reads_file:
        digests["first_stage_run"] = file_digest(Path(first_stage.source))
    return replace(evaluated, judged=judged.judged, asked=len(judged.topics), checksums=digests), judged


def _compare_baselines(
    result: DataSetResult, folder: Path, settings: SuiteSettings
) -> tuple[DataSetResult, JudgedQueries]:
    """Reads ranking requests, and measures the orders that need no model."""
    measures = parse_measures(result.dataset.measures)
    judged, described = read_dataset_requests(result.dataset, measures, settings.queries)
    result = replace(result, judged=judged.judged, asked=len(judged.topics), requests=described)
    _make(folder, private=settings.traces)
    _make(folder / BASELINES, private=settings.traces)
    write_requests(folder / REQUESTS, judged.requests)
    result = replace(result, checksums=request_checksums(result.dataset, folder / REQUESTS))
    for baseline in described.baselines:
        if baseline.run is not None:
            name = f"{BASELINES}/{baseline.file}.trec"
            write_run(baseline.run, folder / name, tag=baseline.file)
            result = _evaluated(result, judged, folder, name)
    return result, judged


def _rerank(
    result: DataSetResult,
    judged: JudgedQueries,
    folder: Path,
    ranker: RankerSource,
    settings: SuiteSettings,
    *,
    progress: bool,
) -> DataSetResult:
    """Reranks what the first stage has found, and measures it."""
    if settings.cluster is None or not ranker.settings.declared_backend.capabilities.reads_checkpoint:
        opened = ranker.open(progress=progress)
        described, before = ranker_settings(opened), opened.summary
    else:
        described, before = unopened_settings(ranker), RunSummary()
    result = replace(result, ranker=described)
    summary = rerank_run(
        _candidates(result.dataset, folder, settings),
        ranker,
        folder / RERANKED_RUN,
        tag="_".join(settings.reranker.split()),
        traces=folder / TRACES if settings.traces else None,
        progress=progress,
        cluster=settings.cluster,
    )
    evaluated = _evaluated(result, judged, folder, RERANKED_RUN)
    return replace(evaluated, summary=summary.since(before))


def _candidates(dataset: DataSet, folder: Path, settings: SuiteSettings) -> RequestSource:
    if dataset.is_of_requests:
        return RequestFileSource(str((folder / REQUESTS).resolve()), settings.shuffle)
    run = str(folder / FIRST_STAGE_RUN)
    return JudgedRunSource(dataset.corpus, run, settings.depth, None, settings.missing, settings.shuffle)


def _evaluated(result: DataSetResult, judged: JudgedQueries, folder: Path, name: str) -> DataSetResult:
    """The result with the measures of one of its runs, as it was written."""
    run = read_run(folder / name)
    measured = {query_id: entries for query_id, entries in run.items() if query_id in judged.topics}
    measures = parse_measures(result.dataset.measures)
    evaluation = evaluate(judged.qrels, measured, measures, name=f"{result.dataset.name}/{name}")
    result = replace(result, evaluations={**result.evaluations, name: evaluation})
    if result.requests is None:
        return result
    choices = {**result.requests.choices, name: first_choices(judged.requests, run)}
    return replace(result, requests=replace(result.requests, choices=choices))


def _make(folder: Path, *, private: bool) -> None:
    try:
        make_folder(folder, private=private)
    except OSError as error:
        raise StorageError(f"can't make folder {str(folder)!r}: {error.strerror}") from error


def _failed(result: DataSetResult, error: R1RankerError, addition: str = "") -> DataSetResult:
    logger.error("%s: %s", result.dataset.name, error)
    return replace(result, failed=_ADDRESS.sub("", str(error)) + addition)


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
    if summary.cache_memory_peak:
        calls += f", {summary.prompt_tokens_computed} of {summary.usage.prompt_tokens} tokens in computed"
        calls += f", {in_units(summary.cache_memory_peak)} of keys and values kept at most"
    return f"{result.dataset.name}: {', '.join(figures)}; {calls}"
