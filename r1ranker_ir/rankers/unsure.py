"""Router first, ranker where it is unsure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.errors import InputError
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.types import Ranking, RankingRequest

MARGIN = 0.02
"""By how much the first one's chance must be greater than the second one's."""


def check_margin(margin: float) -> float:
    """The margin, if it is one."""
    if not 0 <= margin <= 1:
        raise InputError(f"margin is {margin}: give a difference of two chances, from 0 (never unsure) to 1")
    return margin


def margin_of(ranking: Ranking) -> float:
    """How far the chance of the first candidate is above the second one's; 1 where there was nothing to decide."""
    if len(ranking.order) < 2:
        return 1.0
    chances = next((step.probabilities for step in reversed(ranking.steps) if step.probabilities is not None), None)
    if chances is None:
        raise InputError("the first ranker tells no probabilities, so nothing says when it is unsure: give a router")
    first, second = sorted(chances.values(), reverse=True)[:2]
    return first - second


class UnsureCascade:
    """Ranks with the first ranker, and again with the second where the first one's margin is below `margin`."""

    def __init__(self, first: Ranker, second: Ranker, margin: float = MARGIN) -> None:
        self.first = first
        self.second = second
        self.margin = check_margin(margin)

    @property
    def summary(self) -> RunSummary:
        """Calls, tokens, repairs and seconds of both so far; each query counts once."""
        return replace(self.first.summary + self.second.summary, queries=self.first.summary.queries)

    def rank(self, requests: Iterable[RankingRequest]) -> list[Ranking]:
        rankings = self.first.rank(requests)
        unsure = [place for place, ranking in enumerate(rankings) if margin_of(ranking) < self.margin]
        for place, again in zip(unsure, self.second.rank([rankings[each].request for each in unsure]), strict=True):
            rankings[place] = _joined(rankings[place], again)
        return rankings

    async def rank_async(self, request: RankingRequest) -> Ranking:
        ranking = await self.first.rank_async(request)
        if margin_of(ranking) >= self.margin:
            return ranking
        return _joined(ranking, await self.second.rank_async(request))


def _joined(first: Ranking, second: Ranking) -> Ranking:
    """The second ranking, with the steps of both."""
    return replace(second, steps=(*first.steps, *second.steps))
