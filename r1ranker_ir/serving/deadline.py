"""Rankings that end in time: at the deadline the program is told that its budget is spent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from r1ranker_ir.strategies.budget import BudgetSpent
from r1ranker_ir.types import Program, Ranking, RankingRequest

if TYPE_CHECKING:
    from r1ranker_ir.rankers.ranker import Ranker

# A strategy that goes on asking once it knows is not waited for: a first try per candidate is more than any needs.
_MOST_REMINDERS = 1000


async def rank_in_time(ranker: Ranker, program: Program, request: RankingRequest, seconds: float) -> Ranking:
    """Ranks until the seconds are over, and then returns the best order so far, with `budget_reached`.

    A call that is under way then is dropped. A task that is cancelled makes no further calls.
    """
    ranked = asyncio.ensure_future(ranker.engine.rank_async(program))
    try:
        await asyncio.wait({ranked}, timeout=max(0.0, seconds))
    finally:
        if not ranked.done():
            ranked.cancel()
            await asyncio.wait({ranked})
    if not ranked.cancelled():
        ranker.warn_of_signs()
        return ranked.result()
    return ended(program, request)


def ended(program: Program, request: RankingRequest) -> Ranking:
    """The best order that a program knows, without a further answer; the input's where it can't end early."""
    try:
        for _ in range(_MOST_REMINDERS):
            program.throw(BudgetSpent())
    except StopIteration as stop:
        ranking: Ranking = stop.value
        return replace(ranking, budget_reached=True)
    except BudgetSpent:
        pass
    finally:
        program.close()
    return Ranking(request, tuple(range(len(request.candidates))), budget_reached=True)
