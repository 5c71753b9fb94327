"""The ranker that an adapter asks, by the names that the command line knows."""

from __future__ import annotations

import os
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.ranker import Ranker
from r1ranker_ir.registry import REGISTERED, is_registered, resolve


def open_ranker(
    reranker: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    strategy: str | None = None,
    **options: Any,
) -> Ranker:
    """Opens the ranker of a name.

    Args:
        reranker: a registered name; or, with `strategy`, any checkpoint.
        model: a checkpoint in place of a registered name's own.
        strategy: how to use a checkpoint that is no registered name: `iterative` or `direct`.
        options: further arguments of `Ranker`.

    Returns:
        The ranker.

    Raises:
        InputError: if the arguments do not go together.
        CheckpointError: if the model can't be loaded or does not offer the strategy.
        MissingExtraError: if the backend's dependencies are not installed.
    """
    name = os.fspath(reranker)
    if is_registered(name):
        checkpoint, named = resolve(name, model)
        if strategy not in (None, named):
            raise InputError(f"{name!r} is the {named} strategy: leave strategy={strategy!r} out")
        return Ranker(checkpoint, strategy=named, **options)
    if strategy is None:
        raise InputError(
            f"reranker {name!r} is not a registered name ({', '.join(REGISTERED)}): to use a model of that name, add "
            "strategy='iterative' or strategy='direct'"
        )
    if model is not None:
        raise InputError(f"reranker {name!r} names a model already: leave model={os.fspath(model)!r} out")
    return Ranker(name, strategy=strategy, **options)
