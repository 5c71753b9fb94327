"""Reranks the top of a run and writes what comes out, query by query: what `r1ranker rerank` and suites do."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from r1ranker_ir.data.long_runs import open_run
from r1ranker_ir.data.trec_runs import RunWriter
from r1ranker_ir.engine.outcomes import FailedRanking, failed_rankings, log_failed
from r1ranker_ir.engine.signs import warnings_of
from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.files.locks import check_unlocked
from r1ranker_ir.files.paths import NamedFile, check_outputs
from r1ranker_ir.rankers.source import RankerSource as RankerSource
from r1ranker_ir.runs.inputs import candidate_inputs, ranker_inputs
from r1ranker_ir.runs.requests import RunRequests, entries_of, in_order, requests_of_run
from r1ranker_ir.runs.traces import TraceWriter

if TYPE_CHECKING:
    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.rankers.ranker import Ranker
    from r1ranker_ir.runs.ray_engine import RayCluster, RayEngine
    from r1ranker_ir.types import RankingRequest


logger = logging.getLogger(__name__)


class Requests(Protocol):
    """Requests that have positions, the same ones in every process."""

    def __len__(self) -> int:
        """How many positions there are."""
        ...

    def __iter__(self) -> Iterator[RankingRequest]:
        """Yields the requests in order."""
        ...

    def between(self, start: int, stop: int) -> Iterator[tuple[int, RankingRequest]]:
        """Yields position and request, from one position to the one before another."""
        ...


class RequestSource(Protocol):
    """Which requests are to be ranked, named so that another process can find them too."""

    def requests(self) -> Requests:
        """Opens the files and gives the requests."""
        ...


@dataclass(frozen=True)
class RunSource:
    """Which candidates are to be reranked, named so that another process can find them too.

    Args:
        corpus: an ir_datasets id or a folder.
        run: the first stage's TREC run; `-` for standard input.
        depth: how many documents of a query are reranked, from the top.
        queries: only the first so many queries; all if `None`.
        missing: what to do about documents that the corpus lacks.
        shuffle: a seed to shuffle each query's documents with; `None` keeps the run's order.
    """

    corpus: str
    run: str
    depth: int
    queries: int | None = None
    missing: Literal["skip", "error"] = "error"
    shuffle: int | None = None

    def requests(self) -> RunRequests:
        """Opens the files and gives the requests, to be read chunk by chunk; see `requests_of_run`."""
        from r1ranker_ir.data.corpora import open_corpus

        return requests_of_run(
            open_corpus(self.corpus),
            open_run(self.run),
            self.depth,
            queries=self.queries,
            missing=self.missing,
            shuffle=self.shuffle,
        )


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
    """Reranks a run and writes the new one, and a trace where one is wanted.

    Args:
        candidates: what is reranked.
        ranker: what reranks it.
        output: the run to write; `-` for standard output.
        tag: its last column.
        traces: JSON Lines file for the trace, one line a query; gzip if it ends in `.gz`.
        progress: show a progress bar on a terminal.
        cluster: the Ray workers that share the work; this process does it if `None`. What is written is the same.
        announce: log which outputs exist already and will be replaced.

    Returns:
        What it has cost.

    Raises:
        FailedRankingsError: if some queries could not be ranked; all others are in the partial file by then.
        InputError: if a file can't be read or written, or nothing is left to rank.
        MissingExtraError: if Ray or what the backend needs is not installed.
    """
    check_outputs(
        (NamedFile("--output", output), NamedFile("--save-traces", traces)),
        (*candidate_inputs(candidates), *ranker_inputs(ranker)),
        announce=announce,
    )
    writer = RunWriter(output, tag=tag)
    trace = None if traces is None else TraceWriter(traces, ranker.strategy, ranker.notes())
    for option, path in (("--output", output), ("--save-traces", traces)):
        check_unlocked(path, option)
    engine: Ranker | RayEngine
    if cluster is None:
        requests = candidates.requests()
        engine = ranker.open(progress=progress)
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
    return engine.summary
