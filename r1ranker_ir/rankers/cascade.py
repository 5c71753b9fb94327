"""One ranker orders everything, another one only the top: CoRanking's form (arXiv 2503.23427)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from r1ranker_ir.backends.limits import check_least
from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.engine.outcomes import FailedRanking, Outcome, ranked_in_order, ranked_or_failed
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.strategies.budget import Budget, within_budget
from r1ranker_ir.types import Program, Ranking, RankingRequest, Step


class Cascade:
    """Ranks with two rankers of any models, strategies and backends; the second orders the best `depth` again.

    The limits hold for both together, tokens as each of the models counts them.
    """

    def __init__(
        self,
        first: Ranker,
        second: Ranker,
        *,
        depth: int = 20,
        max_calls: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        check_least(2, depth=depth)
        check_least(1, max_calls=max_calls, max_tokens=max_tokens)
        self.first = first
        self.second = second
        self.depth = depth
        self.budget = Budget(max_calls, max_tokens)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.first!r}, {self.second!r}, depth={self.depth})"

    @property
    def summary(self) -> RunSummary:
        """Calls, tokens, repairs and seconds of both so far; a query counts when the second one has finished it."""
        second = self.second.summary
        if self.first.engine is self.second.engine:
            return replace(second, queries=second.queries // 2)
        return replace(self.first.summary + second, queries=second.queries)

    def rank(self, requests: Iterable[RankingRequest]) -> list[Ranking]:
        requests = list(requests)
        return ranked_in_order(self.outcomes(requests), len(requests))

    def stream(self, requests: Iterable[RankingRequest]) -> Iterator[tuple[int, Ranking]]:
        return ranked_or_failed(self.outcomes(requests))

    def outcomes(self, requests: Iterable[RankingRequest]) -> Iterator[tuple[int, Outcome]]:
        ordered: dict[int, tuple[int, Ranking]] = {}
        failed: list[tuple[int, FailedRanking]] = []

        def tops() -> Iterator[Program]:
            programs = map(self._first, requests)
            places = itertools.count()
            for index, outcome in self.first.engine.outcomes(programs):
                if isinstance(outcome, FailedRanking):
                    failed.append((index, outcome))
                    continue
                ordered[next(places)] = index, outcome
                yield self._second(outcome)

        for place, again in self.second.engine.outcomes(tops()):
            index, ranking = ordered.pop(place)
            yield index, again if isinstance(again, FailedRanking) else _joined(ranking, again)
        yield from failed
        self.first.warn_of_signs()
        self.second.warn_of_signs()

    async def rank_async(self, request: RankingRequest) -> Ranking:
        ranking = await self.first.engine.rank_async(self._first(request))
        again = await self.second.engine.rank_async(self._second(ranking))
        self.first.warn_of_signs()
        self.second.warn_of_signs()
        return _joined(ranking, again)

    def _first(self, request: RankingRequest) -> Program:
        return within_budget(self.first.program(request), self.budget, self.first.prompt.limits)

    def _second(self, ranking: Ranking) -> Program:
        request = replace(ranking.request, candidates=ranking.best_first[: self.depth])
        left = self.budget.after(ranking.usage)
        return within_budget(self.second.program(request), left, self.second.prompt.limits)


def _joined(first: Ranking, second: Ranking) -> Ranking:
    """The first ranking with its top in the order of the second."""
    top = first.order[: len(second.order)]
    order = (*(top[place] for place in second.order), *first.order[len(top) :])
    steps = (*first.steps, *(_moved(step, top) for step in second.steps))
    return Ranking(first.request, order, steps, first.budget_reached or second.budget_reached)


def _moved(step: Step, top: Sequence[int]) -> Step:
    """A step in terms of the whole request's positions."""
    chances = step.probabilities
    moved: dict[str, Any] = {
        name: tuple(top[place] for place in getattr(step, name)) for name in ("shown", "outcome", "marked")
    }
    moved["probabilities"] = None if chances is None else {top[place]: chance for place, chance in chances.items()}
    return replace(step, **moved)
