"""The rankings among outcomes; those that failed are logged, and count as not answered."""

from __future__ import annotations

from collections.abc import Iterable

from r1ranker_ir.engine.outcomes import FailedRanking, Outcome, log_failed
from r1ranker_ir.types import Ranking


def answered(outcomes: Iterable[tuple[int, Outcome]]) -> dict[int, Ranking]:
    """Waits for all outcomes: rankings by place."""
    found, failed = dict[int, Ranking](), dict[int, FailedRanking]()
    for place, outcome in outcomes:
        if isinstance(outcome, Ranking):
            found[place] = outcome
        else:
            failed[place] = outcome
    log_failed(failed)
    return found
