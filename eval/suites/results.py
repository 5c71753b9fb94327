"""What a suite is asked for, and what became of its data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ir_measures import Measure

    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.eval.measuring.measures import Evaluation
    from r1ranker_ir.runs.ray_engine import RayCluster

    from .baselines import Baseline
    from .tables import DataSet

FIRST_STAGE_RUN, RERANKED_RUN, TRACES = "first-stage.trec", "reranked.trec", "traces.jsonl"
"""A data set's files."""
REQUESTS, BASELINES = "requests.jsonl", "baselines"
"""What a data set of ranking requests has beside these: what was ranked, and the folder of the baselines' runs."""


@dataclass(frozen=True)
class SuiteSettings:
    """How a suite is run.

    Args:
        reranker: what reports call the reranker.
        depth: documents of a query that are reranked; runs go no deeper. Ranking requests are ranked as they are.
        first_stage: `bm25s`, `pyserini:bm25` (each data set's own prebuilt index), `pyserini:INDEX`, or `run:FILE`, in
            which `{dataset}` stands for a data set's name; the suite's own if `None`.
        measures: in place of the data sets' own, split by spaces.
        queries: only the first so many judged queries, or requests, of each data set; all if `None`.
        missing: what to do about documents of the first stage that the corpus lacks.
        shuffle: a seed to shuffle each query's documents with before they are reranked.
        traces: keep each query's model calls.
        cluster: the Ray workers that share the work; this process does it if `None`.
        command: the command that asks for all this, without what changes no result (such as where it goes). A folder
            belongs to one command.
    """

    reranker: str
    depth: int = 100
    first_stage: str | None = None
    measures: str | None = None
    queries: int | None = None
    missing: Literal["error", "skip"] = "error"
    shuffle: int | None = None
    traces: bool = False
    cluster: RayCluster | None = None
    command: Sequence[str] = ()


@dataclass(frozen=True)
class RequestsResult:
    """What is to be said of a data set of ranking requests alone.

    Args:
        given: how many requests there are.
        run: how many were run.
        lengths: of the shortest and of the longest list among these.
        without_best: how many of these have no best candidate: they are ranked, and not measured.
        graded: gains are the judgments' grades; otherwise the best candidates are relevant.
        dropped: how many rows of the source no request could be made of, by reason.
        renamed: how many requests have ids in the runs that are not the source's own.
        baselines: what the ranker is compared with.
        chance: query id to measure to what random orders reach on average.
        choices: a run's file (`""` for random orders) to name of a quantity to its mean over the first choices.
        partial_values: quantities that only some candidates' requests tell.
    """

    given: int
    run: int
    lengths: tuple[int, int]
    without_best: int
    graded: bool
    dropped: Mapping[str, int]
    renamed: int
    baselines: Sequence[Baseline]
    chance: Mapping[str, Mapping[Measure, float | None]]
    choices: Mapping[str, Mapping[str, float]]
    partial_values: Sequence[str] = ()


@dataclass(frozen=True)
class DataSetResult:
    """What became of one data set.

    Args:
        dataset: which one.
        first_stage: what searched it; empty for ranking requests.
        evaluations: file name of a run to its measures, the first stage's or the baselines' first.
        judged: how many queries are judged.
        asked: how many of them were run.
        checksums: of the data that were read.
        ranker: the opened ranker's settings; empty if it was not opened.
        summary: what reranking has cost; `None` if it did not come to an end.
        failed: why the data set has no (whole) result.
        requests: what is to be said of ranking requests; `None` for a corpus.
    """

    dataset: DataSet
    first_stage: str
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    judged: int = 0
    asked: int = 0
    checksums: Mapping[str, Any] = field(default_factory=dict)
    ranker: Mapping[str, Any] = field(default_factory=dict)
    summary: RunSummary | None = None
    failed: str | None = None
    requests: RequestsResult | None = None
