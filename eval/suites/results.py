"""What a suite is asked for, and what became of its data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.rankers.unsure import MARGIN

if TYPE_CHECKING:
    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.eval.measuring.measures import Evaluation
    from r1ranker_ir.runs.ray_engine import RayCluster

    from .baselines import Baseline
    from .tables import DataSet

FIRST_STAGE_RUN, RERANKED_RUN, TRACES, REQUESTS = "first-stage.trec", "reranked.trec", "traces.jsonl", "requests.jsonl"
"""A data set's files."""


@dataclass(frozen=True)
class SuiteSettings:
    """How a suite is run."""

    reranker: str  # its name in reports
    depth: int = 100  # documents reranked per query; runs go no deeper. Ranking requests are ranked whole
    # bm25s, pyserini:bm25 (each data set's prebuilt index), pyserini:INDEX, or run:FILE with {dataset} for the name
    first_stage: str | None = None
    measures: str | None = None  # in place of the data sets' own
    queries: int | None = None  # only the first judged queries, or requests, of each data set
    missing: Literal["error", "skip"] = "error"  # about documents that the corpus lacks
    shuffle: int | None = None  # a seed to shuffle each query's documents with before they are reranked
    traces: bool = False  # keep each query's model calls
    cluster: RayCluster | None = None  # the Ray workers that share the work; this process does it if None
    router: Path | None = None  # folder of a distilled router, to be measured beside the reranker
    margin: float = MARGIN  # the reranker is asked where the router's margin is below this
    command: Sequence[str] = ()  # without what changes no result; a folder belongs to one command


@dataclass(frozen=True)
class RequestsResult:
    """What reports say of a data set of ranking requests alone."""

    facts: Mapping[str, Any]  # for the manifest
    counted: str  # how many there are, and how long their lists are
    notes: Sequence[str]  # on how they were measured
    baselines: Sequence[Baseline]  # what the ranker is compared with
    chance: Mapping[str, Any]  # what random orders reach on average: mean, and per_query
    # By run file ("": random orders): quantity to its mean over first choices.
    choices: dict[str, Mapping[str, float]]


@dataclass
class DataSetResult:
    """What has become of one data set so far."""

    dataset: DataSet  # which one
    first_stage: str  # what searched it; empty for ranking requests
    evaluations: dict[str, Evaluation] = field(default_factory=dict)  # by run file, first stage or baselines first
    judged: int = 0  # how many queries are judged
    asked: int = 0  # how many of them were run
    checksums: Mapping[str, Any] = field(default_factory=dict)  # of the data that were read
    ranker: Mapping[str, Any] = field(default_factory=dict)  # the opened ranker's settings; empty if it was not opened
    summary: RunSummary | None = None  # what reranking has cost; None if it did not come to an end
    failed: str | None = None  # why the data set has no (whole) result
    requests: RequestsResult | None = None  # None for a corpus
