"""The service without HTTP: rankers by name, one queue for all, deadlines, and what happens when a model fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted
from r1ranker_ir.rankers.source import RankerSource
from r1ranker_ir.serving.admission import Admission
from r1ranker_ir.serving.deadline import rank_in_time
from r1ranker_ir.serving.limits import ServiceLimits
from r1ranker_ir.serving.refusals import ModelFailure, RefusedRequest
from r1ranker_ir.types import Candidate, Condition, Program, Ranking, RankingRequest, place_score

if TYPE_CHECKING:
    from r1ranker_ir.rankers.ranker import Ranker

logger = logging.getLogger(__name__)

Order = Literal["complete", "partial", "input"]
"""What became of a request: ranked to the end; ended by its deadline or a budget, with the best order so far; or given
back in the order it came in, because the model failed."""


@dataclass(frozen=True)
class Served:
    """A ranking as it is answered: by which ranker, how it ended, and the seconds from its arrival.

    `relevance` stands beside the ranking's `best_first`: a calibrated probability; `None` without a calibration.
    """

    model: str
    strategy: str
    notes: tuple[str, ...]
    ranking: Ranking
    order: Order
    seconds: float
    conditions: Mapping[str, Condition]
    relevance: tuple[float, ...] | None = None

    @property
    def scores(self) -> tuple[float, ...]:
        """The score of each document, best first: calibrated where it can be, else what only says the place again."""
        count = len(self.ranking.order)
        return tuple(place_score(place, count) for place in range(count)) if self.relevance is None else self.relevance


class Service:
    """Ranks requests of many callers.

    Args:
        sources: name to the ranker of that name; the first one is that of requests that name none.
        limits: what a request may hold and take.
        fallback: when a model fails, answer with the order of the input, marked, in place of an error.
        keys: what clients may show as their key; none for a service that is open to all.
    """

    def __init__(
        self,
        sources: Mapping[str, RankerSource],
        limits: ServiceLimits | None = None,
        *,
        fallback: bool = False,
        keys: Sequence[str] = (),
    ) -> None:
        if not sources:
            raise InputError("there is no reranker: give at least one")
        self.limits = limits or ServiceLimits()
        self.fallback = fallback
        self.keys = tuple(keys)
        self.names = tuple(sources)
        self.admission = Admission(self.limits.max_active, self.limits.max_waiting)
        self.started = int(time.time())
        self.rankers: dict[str, Ranker] = {}
        self.failure: Exception | None = None
        self._sources = sources

    @property
    def is_ready(self) -> bool:
        """Whether all models are loaded."""
        return len(self.rankers) == len(self._sources)

    def strategy_of(self, name: str) -> str:
        """The strategy of a reranker."""
        return self._sources[name].strategy

    def is_calibrated(self, name: str) -> bool:
        """Whether a reranker, once it is loaded, gives probabilities of relevance."""
        return name in self.rankers and self.rankers[name].calibration is not None

    def open(self) -> None:
        """Loads the models, which takes its time; what fails is also kept in `failure`."""
        try:
            for name, source in self._sources.items():
                self.rankers[name] = source.open()
        except Exception as error:
            self.failure = error
            raise

    def ranker_of(self, name: str | None) -> tuple[str, Ranker]:
        """The ranker that a request means."""
        if name is not None and name not in self.names:
            raise RefusedRequest(f"model is {quoted(name)}: use one of {', '.join(self.names)}", 404)
        found = self.names[0] if name is None else name
        if not self.is_ready:
            raise RefusedRequest("the models are being loaded: try again later", 503, retry_after=5)
        return found, self.rankers[found]

    async def rank(
        self,
        model: str | None,
        query: str,
        texts: Sequence[str],
        *,
        request_id: str = "",
        max_tokens: int | None = None,
        deadline: float | None = None,
        watched: Callable[[Program], Program] = lambda program: program,
    ) -> Served:
        """Ranks texts for a query.

        Args:
            model: the reranker's name; `None` for the first one.
            query: the information need.
            texts: the documents, best first by the first stage.
            request_id: what logs call it.
            max_tokens: cut each text to so many of the model's tokens.
            deadline: seconds; the service's own where it is sooner.
            watched: what is put around the ranking's program.

        Raises:
            RefusedRequest: if it asks for what there is not, or for too much, or if the queue is full.
            InputError: if the texts can't be ranked.
            ModelFailure: if the model fails, unless the service falls back to the input's order.
        """
        started = time.monotonic()
        name, ranker = self.ranker_of(model)
        self.limits.check(query, len(texts), sum(map(len, texts)))
        until = started + min(deadline or self.limits.deadline, self.limits.deadline)
        request = RankingRequest(query, _candidates(texts), query_id=request_id or "-")
        kept, order = Ranking(request, tuple(range(len(texts)))), "partial"
        place: AbstractAsyncContextManager[Any] = self.admission.place(until - time.monotonic())
        async with place if len(texts) > 1 else nullcontext(True) as found:
            if found:
                kept, order = await self._ranked(ranker, request, max_tokens, until, watched)
        seconds = time.monotonic() - started
        relevance = ranker.relevance(kept) if order == "complete" else None
        told = (ranker.conditions, relevance)
        return Served(name, ranker.strategy, ranker.notes, kept, order, seconds, *told)  # type: ignore[arg-type]

    async def _ranked(
        self,
        ranker: Ranker,
        request: RankingRequest,
        max_tokens: int | None,
        until: float,
        watched: Callable[[Program], Program],
    ) -> tuple[Ranking, Order]:
        try:
            if max_tokens is not None:
                texts = [ranker.backend.cut_text(each.text, max_tokens) for each in request.candidates]
                request = RankingRequest(request.query, _candidates(texts), query_id=request.query_id)
            program = watched(ranker.program(request))
            ranking = await rank_in_time(ranker, program, request, until - time.monotonic())
        except InputError:
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Its words may hold texts of documents: a server's error repeats what it was sent.
            logger.error("the model failed (%s)", type(error).__name__, extra={"fields": {"id": request.query_id}})
            logger.debug("the model failed", exc_info=True)
            if not self.fallback:
                raise ModelFailure("the model failed: its service's log names the kind of error") from error
            return Ranking(request, tuple(range(len(request.candidates)))), "input"
        return ranking, "partial" if ranking.budget_reached else "complete"


def _candidates(texts: Sequence[str]) -> tuple[Candidate, ...]:
    return tuple(Candidate(str(index), text) for index, text in enumerate(texts))
