"""Reranking with language models that reason, one exclusion at a time, as a plugin for `rerankers`.

Importing this package registers its names with `rerankers.Reranker`, also where that was imported earlier. Neither
torch nor transformers nor rerankers is imported until something needs it.
"""

from __future__ import annotations

import importlib
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
from r1ranker_ir.integrations.registration import register_when_imported
from r1ranker_ir.moved import find_moved_modules
from r1ranker_ir.types import Candidate, Ranking, RankingRequest, Step, Usage
from r1ranker_ir.version import VERSION as __version__

if TYPE_CHECKING:
    from rerankers import Reranker

    from r1ranker_ir.adapters.recommendation.adapter import RecommendationAdapter
    from r1ranker_ir.adapters.routing.adapter import RoutingAdapter
    from r1ranker_ir.adapters.routing.llms import LLMProfile
    from r1ranker_ir.integrations.rerankers import (
        DRankerReranker,
        IRankerReranker,
        LikelihoodReranker,
        PointwiseReranker,
        SetwiseReranker,
        TracedResults,
    )
    from r1ranker_ir.rankers.ranker import Ranker

_RERANKERS = "DRankerReranker IRankerReranker LikelihoodReranker PointwiseReranker SetwiseReranker TracedResults"
_LAZY = {
    **dict.fromkeys(_RERANKERS.split(), "r1ranker_ir.integrations.rerankers"),
    "LLMProfile": "r1ranker_ir.adapters.routing.llms",
    "Ranker": "r1ranker_ir.rankers.ranker",
    "RecommendationAdapter": "r1ranker_ir.adapters.recommendation.adapter",
    "Reranker": "rerankers",
    "RoutingAdapter": "r1ranker_ir.adapters.routing.adapter",
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
find_moved_modules()
