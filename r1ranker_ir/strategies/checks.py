"""What one strategy is asked for and others are not."""

from __future__ import annotations

from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Asked

from . import STRATEGIES
from .options import RankingOptions
from .strategy import Strategy


def check_options_of(strategy: Strategy | str, options: RankingOptions) -> None:
    """Raises an InputError if something is asked of a strategy that only others have."""
    asked = STRATEGIES.find(strategy) if isinstance(strategy, str) else strategy
    for name, value in options.stated().items():
        owners = [each.name for each in STRATEGIES.values() if each.owns(name, value)]
        if owners and not asked.owns(name, value):
            raise InputError(
                f"{name}={value!r} is for the {' and '.join(owners)} strategy, not for {asked.name}: leave it out"
            )
    if asked.asks == "grade" and options.votes > 1 and options.vote_among == "permutations":
        raise InputError(
            f"{asked.name} shows one candidate at a time, so there is nothing to permute: use vote_among='thoughts'"
        )


def asked_by(strategy: str) -> Asked | None:
    """What a strategy asks for, by its name; `None` where that is not known."""
    return STRATEGIES[strategy].asks if strategy in STRATEGIES else None
