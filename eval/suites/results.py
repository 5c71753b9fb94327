"""What a suite is asked for, and what became of its data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.option_fields import model_option, option
from r1ranker_ir.rankers.unsure import MARGIN
from r1ranker_ir.runs.cluster import RayCluster
from r1ranker_ir.runs.run_source import DEPTH, MISSING, SHUFFLE

if TYPE_CHECKING:
    from r1ranker_ir.engine.engine import RunSummary
    from r1ranker_ir.eval.measuring.measures import Evaluation

    from .baselines import Baseline
    from .tables import DataSet

FIRST_STAGE_RUN, RERANKED_RUN, TRACES, REQUESTS = "first-stage.trec", "reranked.trec", "traces.jsonl", "requests.jsonl"
"""A data set's files."""


@dataclass(frozen=True)
class SuiteSettings:
    """How a suite is run; each field says what it is for. A folder belongs to one command."""

    first_stage: str | None = option(
        None,
        "bm25s; pyserini:bm25, each one's prebuilt index; pyserini:INDEX or run:FILE, with {dataset} for its name.",
        unset="pyserini:bm25 for a suite, bm25s for a folder",
        group="What",
    )
    depth: int = DEPTH
    queries: int | None = option(None, "Only the first N of each data set.", unset="all", group="What", least=1)
    missing: Literal["error", "skip"] = MISSING
    shuffle: int | None = SHUFFLE
    measures: str | None = option(
        None,
        "Measures as ir_measures writes them, split by spaces: RR(rel=2)@10, P@5, R@100, …",
        unset="the data set's",
        group="What",
    )
    reranker: str = model_option("", "As for r1ranker rerank.", unset=None)
    router: Path | None = model_option(
        None,
        "Folder of r1ranker train router, measured beside, alone and with the reranker where it is unsure.",
        unset="none",
    )
    margin: float = model_option(
        MARGIN, "The router is unsure where its first two chances differ by less.", least=0, most=1
    )
    traces: bool = option(
        False, "Keep each query's model calls, a file for each data set.", group="Output", flags=("--save-traces",)
    )
    cluster: RayCluster | None = None  # the Ray workers that share the work; this process does it if None
    command: Sequence[str] = ()  # without what changes no result


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
