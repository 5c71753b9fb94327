"""First stages: what finds the candidates that a reranker orders, and the chain of both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1ranker_ir.retrieval.lucene import PyseriniSearcher as PyseriniSearcher
    from r1ranker_ir.retrieval.pipeline import RerankPipeline as RerankPipeline

_LAZY = {"PyseriniSearcher": "r1ranker_ir.retrieval.lucene", "RerankPipeline": "r1ranker_ir.retrieval.pipeline"}

__all__ = ["PyseriniSearcher", "RerankPipeline"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
