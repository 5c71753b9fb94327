"""The ranker that an adapter asks, by the names that the command line knows."""

from __future__ import annotations

import os
from typing import Any

from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.registry import find_ranker


def open_ranker(
    reranker: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    strategy: str | None = None,
    **options: Any,
) -> Ranker:
    """Opens the ranker of a registered name or a published system's; with `strategy`, of any checkpoint."""
    found = find_ranker(reranker, model, strategy, options)
    return Ranker(found.checkpoint, strategy=found.strategy, **found.options)
