"""Reranking with language models that reason, one exclusion at a time, as a plugin for `rerankers`.

Importing this package registers its names with `rerankers.Reranker`, also where that was imported earlier. Neither
torch nor transformers nor rerankers is imported until something needs it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from r1ranker_ir.errors import (
    BackendError,
    CallError,
    CancelledRankingError,
    CheckpointError,
    ContextLengthError,
    DataFileError,
    FailedRankingsError,
    InputError,
    MissingExtraError,
    PairScoreError,
    R1RankerError,
    RepairRateError,
    StorageError,
)
from r1ranker_ir.registry import register_when_imported
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage

if TYPE_CHECKING:
    from rerankers import Reranker as Reranker

    from r1ranker_ir.adapters.recommendation.adapter import RecommendationAdapter as RecommendationAdapter
    from r1ranker_ir.adapters.routing.adapter import RoutingAdapter as RoutingAdapter
    from r1ranker_ir.adapters.routing.profiles import LLMProfile as LLMProfile
    from r1ranker_ir.ranker import Ranker as Ranker
    from r1ranker_ir.rerankers import DRankerReranker as DRankerReranker
    from r1ranker_ir.rerankers import IRankerReranker as IRankerReranker
    from r1ranker_ir.rerankers import LikelihoodReranker as LikelihoodReranker
    from r1ranker_ir.rerankers import PointwiseReranker as PointwiseReranker
    from r1ranker_ir.rerankers import SetwiseReranker as SetwiseReranker
    from r1ranker_ir.rerankers import TracedResults as TracedResults

try:
    __version__ = importlib.metadata.version("r1ranker-ir")
except importlib.metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+source"

_LAZY = {
    "DRankerReranker": "r1ranker_ir.rerankers",
    "IRankerReranker": "r1ranker_ir.rerankers",
    "LLMProfile": "r1ranker_ir.adapters.routing.profiles",
    "LikelihoodReranker": "r1ranker_ir.rerankers",
    "PointwiseReranker": "r1ranker_ir.rerankers",
    "Ranker": "r1ranker_ir.ranker",
    "RecommendationAdapter": "r1ranker_ir.adapters.recommendation.adapter",
    "Reranker": "rerankers",
    "RoutingAdapter": "r1ranker_ir.adapters.routing.adapter",
    "SetwiseReranker": "r1ranker_ir.rerankers",
    "TracedResults": "r1ranker_ir.rerankers",
}

__all__ = [
    "BackendError",
    "CallError",
    "CancelledRankingError",
    "Candidate",
    "CheckpointError",
    "ContextLengthError",
    "DRankerReranker",
    "DataFileError",
    "FailedRankingsError",
    "IRankerReranker",
    "InputError",
    "LLMProfile",
    "LikelihoodReranker",
    "MissingExtraError",
    "PairScoreError",
    "PointwiseReranker",
    "R1RankerError",
    "Ranker",
    "Ranking",
    "RankingRequest",
    "RecommendationAdapter",
    "RepairRateError",
    "Reranker",
    "RoutingAdapter",
    "SetwiseReranker",
    "Step",
    "StorageError",
    "TracedResults",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
