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
    """Opens the ranker of a name.

    Args:
        reranker: a registered name, or a published system's, such as `rank-r1`; or, with `strategy`, any checkpoint.
        model: a checkpoint in place of a registered name's own.
        strategy: how to use a checkpoint that is no registered name: `iterative`, `direct`, `setwise` or `pointwise`.
        options: further arguments of `Ranker`.

    Returns:
        The ranker.

    Raises:
        InputError: if the arguments do not go together.
        CheckpointError: if the model can't be loaded or does not offer the strategy.
        MissingExtraError: if the backend's dependencies are not installed.
    """
    found = find_ranker(reranker, model, strategy, options)
    return Ranker(found.checkpoint, strategy=found.strategy, **found.options)
