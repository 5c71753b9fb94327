"""Reranks the top of a run and writes what comes out, query by query: what `r1ranker rerank` and suites do."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1ranker_ir.data.trec_runs import RunWriter
from r1ranker_ir.engine.outcomes import FailedRanking, failed_rankings, log_failed
from r1ranker_ir.engine.signs import warnings_of
from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.files.locks import check_unlocked
from r1ranker_ir.files.paths import NamedFile, cache_inputs, check_outputs, checkpoint_inputs, corpus_inputs
from r1ranker_ir.rankers.source import RankerSource as RankerSource
from r1ranker_ir.runs.requests import RequestSource as RequestSource
from r1ranker_ir.runs.requests import entries_of, in_order
from r1ranker_ir.runs.run_source import RunSource as RunSource
from r1ranker_ir.runs.traces import TraceWriter

if TYPE_CHECKING:
    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.rankers.ranker import Ranker
    from r1ranker_ir.runs.cluster import RayCluster
    from r1ranker_ir.runs.ray_engine import RayEngine
    from r1ranker_ir.thoughts.choosing import ExampleChooser

logger = logging.getLogger(__name__)

_OF_A_RANKER = {
    "template": "--template",
    "settings_from": "--settings-from",
    "tokenizer": "the tokenizer",
    "adapter": "the adapter",
}


def rerank_run(
    candidates: RequestSource,
    ranker: RankerSource,
    output: str | Path,
    *,
    tag: str,
    traces: Path | None = None,
    progress: bool = False,
    cluster: RayCluster | None = None,
    announce: bool = False,
) -> RunSummary:
    """Reranks a run and writes the new one (`-`: standard output) with the tag in its last column, and perhaps a trace.

    Where some queries fail, the others are in the partial file when the error is raised. What is written does not
    depend on the cluster; `announce` logs which outputs exist already and will be replaced.
    """
    check_outputs(
        (NamedFile("--output", output), NamedFile("--save-traces", traces)),
        (*candidate_inputs(candidates), *ranker_inputs(ranker)),
        announce=announce,
    )
    writer = RunWriter(output, tag=tag)
    trace = None if traces is None else TraceWriter(traces, ranker.strategy, ranker.notes(), ranker.conditions())
    check_unlocked(output, "--output")
    check_unlocked(traces, "--save-traces")
    engine: Ranker | RayEngine
    examples: ExampleChooser | None = None
    if cluster is None:
        requests = candidates.requests()
        engine = ranker.open(progress=progress)
        examples = engine.examples
        outcomes = in_order(engine.outcomes(requests))
    else:
        from r1ranker_ir.runs.ray_engine import RayEngine

        engine = RayEngine(candidates, ranker, cluster, traced=traces is not None, progress=progress)
        outcomes = engine.outcomes()
    failed: dict[int, FailedRanking] = {}
    with writer, trace or contextlib.nullcontext(), contextlib.closing(outcomes):
        try:
            for position, outcome in enumerate(outcomes):
                if isinstance(outcome, FailedRanking):
                    failed[position] = outcome
                    continue
                writer.write(outcome.request.query_id, entries_of(outcome))
                if trace is not None:
                    trace.write(outcome)
        except R1RankerError:
            log_failed(failed)
            raise
        finally:
            for line in warnings_of(engine.summary.signs, ranker.model, ranker.strategy).values():
                logger.warning("%s", line)
        if failed:
            raise failed_rankings(failed, writer.queries)
    if examples is not None:
        logger.info("%s", examples.report())
    return engine.summary


def candidate_inputs(candidates: RequestSource) -> Iterator[NamedFile]:
    """The files that the candidates come from, with the options that name them."""
    yield from corpus_inputs("--corpus", getattr(candidates, "corpus", None))
    yield NamedFile("--run", getattr(candidates, "run", None))
    yield NamedFile("the requests", getattr(candidates, "path", None))


def ranker_inputs(ranker: RankerSource) -> Iterator[NamedFile]:
    """The files that a ranker reads, or keeps its answers in, with the options that name them."""
    yield from cache_inputs("--cache", ranker.settings.get("cache"))
    yield from checkpoint_inputs("--model", ranker.model)
    yield NamedFile("--thoughts", ranker.settings.thoughts)
    for name, option in _OF_A_RANKER.items():
        yield from checkpoint_inputs(option, ranker.settings.get(name))
