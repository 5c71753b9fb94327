"""What a Ray worker does: opens the same corpus, run and ranker as the others, and ranks some of the queries."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any

from r1ranker_ir.engine.engine import RunSummary
from r1ranker_ir.engine.outcomes import FailedRanking
from r1ranker_ir.engine.outcomes import Outcome as Ranked
from r1ranker_ir.errors import BackendError, R1RankerError
from r1ranker_ir.rankers.ranker import Ranker
from r1ranker_ir.rankers.source import RankerSource
from r1ranker_ir.runs.requests import Requests, RequestSource
from r1ranker_ir.types import Candidate, Ranking
from r1ranker_ir.version import VERSION

MOST_DEATHS = 2
"""How many workers may die over the same queries, and how often each may before any has finished some."""
_ADVICE = (
    "Often the model does not fit into memory: ask for fewer workers, a smaller batch, or more of a machine for each "
    "(--gpus-per-worker, --cpus-per-worker). Ray's own account of it lies in /tmp/ray/session_latest/logs"
)


@dataclass(frozen=True)
class Portions:
    """A run's queries cut into portions of nearly equal length, each of them some neighbouring positions."""

    queries: int
    count: int

    def bounds(self, number: int) -> tuple[int, int]:
        """Gives the first position of a portion and the one behind its last."""
        return number * self.queries // self.count, (number + 1) * self.queries // self.count


@dataclass(frozen=True)
class Job:
    """All that a worker has to know."""

    candidates: RequestSource
    ranker: RankerSource
    portions: Portions
    workers: int  # at once
    traced: bool  # texts and steps are wanted, not only the order
    log_level: int  # of the messages that are wanted


class Attempts:
    """Counts what workers begin, so that what kills its worker each time is not tried for ever; an actor of its own.

    Ray restarts dead workers and gives them their portion again without end, or with limits over a run's whole time,
    however long it is. Here, whatever comes to an end sets its count back.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._opened = 0
        self._begun: Counter[int] = Counter()

    def opening(self) -> int:
        """A worker opens its ranker; gives how many have died without any portion having been finished."""
        self._opened += 1
        return max(0, self._opened - self._workers)

    def beginning(self, portion: int) -> int:
        """A portion is begun; gives how many workers have died over it."""
        self._begun[portion] += 1
        return self._begun[portion] - 1

    def finished(self, portion: int) -> None:
        self._opened = 0
        del self._begun[portion]


@dataclass(frozen=True)
class Outcome:
    """What comes back for one portion."""

    rankings: tuple[Ranked, ...]  # or why there is none, in the order of their positions
    summary: RunSummary
    worker: str  # its process and machine
    identity: Mapping[str, Any]  # its backend's, see Backend.identity; empty where it could not be opened
    opening_messages: tuple[logging.LogRecord, ...]  # logged while the ranker was opened
    messages: tuple[logging.LogRecord, ...]  # logged meanwhile
    deaths: int  # workers that died over the portion before
    failure: Exception | None  # what stopped the worker before the portion's end


class PortionRanker:
    """The callable that Ray Data keeps in an actor; takes the number of a portion and gives its `Outcome`, pickled.

    Whatever goes wrong in here is part of the outcome: Ray would tell it as its own error, and some of it try again.
    """

    def __init__(self, job: Job, attempts: Any) -> None:
        import ray

        self._job = job
        self._attempts = attempts
        self._name = f"process {os.getpid()} on {platform.node()}"
        self._identity: Mapping[str, Any] = {}
        self._failure: Exception | None = None
        self._opening_messages: tuple[logging.LogRecord, ...] = ()
        try:
            deaths = ray.get(attempts.opening.remote())
            if deaths > MOST_DEATHS * self._job.workers:
                raise BackendError(f"{deaths} workers died before any had finished its first queries. {_ADVICE}")
            with _messages(logging.CRITICAL + 1):  # who started this has opened the same files, and logged the same
                self._requests: Requests = job.candidates.requests()
            with _messages(job.log_level) as messages:
                self._ranker: Ranker = job.ranker.open()
                self._identity = dict(self._ranker.backend.identity)
            self._opening_messages = tuple(messages)
        except Exception as error:
            self._failure = self._portable(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ranks the portion whose number is under `item`; gives its number, this package's version, and the outcome."""
        import ray

        [number] = map(int, batch["item"])
        deaths = ray.get(self._attempts.beginning.remote(number))
        outcome = self._rank(number, deaths)
        self._attempts.finished.remote(number)
        pickled = pickle.dumps(outcome, protocol=pickle.HIGHEST_PROTOCOL)
        return {"portion": [number], "version": [VERSION], "outcome": [pickled]}

    def _rank(self, number: int, deaths: int) -> Outcome:
        start, stop = self._job.portions.bounds(number)
        finished: dict[int, Ranked] = {}
        failure, summary = self._failure, RunSummary()
        if failure is None and deaths > MOST_DEATHS:
            failure = BackendError(f"{deaths} workers died over the same queries, {start + 1} to {stop}. {_ADVICE}")
        with _messages(self._job.log_level) as messages:
            if failure is None:
                before = self._ranker.summary
                requests = (request for _, request in self._requests.between(start, stop))
                try:
                    # What all answers have in common is told of all portions together, by who started this.
                    for place, ranked in self._ranker.outcomes(requests):
                        if isinstance(ranked, FailedRanking):
                            error = self._portable(ranked.error)
                            portable = error if isinstance(error, R1RankerError) else BackendError(str(error))
                            finished[place] = replace(ranked, error=portable)
                        else:
                            finished[place] = ranked if self._job.traced else _without_texts(ranked)
                except Exception as error:
                    failure = self._portable(error)
                summary = self._ranker.summary.since(before)
        rankings = tuple(finished[place] for place in sorted(finished))
        opening = self._opening_messages
        return Outcome(rankings, summary, self._name, self._identity, opening, tuple(messages), deaths, failure)

    def _portable(self, error: Exception) -> Exception:
        """Makes an error fit to travel: with its traceback as a note, and as another one if it can't be pickled."""
        error.add_note(f"raised in a worker, {self._name}:\n{''.join(traceback.format_exception(error)).rstrip()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            replaced = RuntimeError(f"{type(error).__name__}: {error}")
            replaced.add_note(error.__notes__[-1])
            return replaced
        return error


def _without_texts(ranking: Ranking) -> Ranking:
    """Keeps what a run's lines are made of."""
    candidates = tuple(Candidate(candidate.id, "") for candidate in ranking.request.candidates)
    return replace(ranking, request=replace(ranking.request, candidates=candidates), steps=())


@contextmanager
def _messages(level: int) -> Iterator[list[logging.LogRecord]]:
    """Collects what this package logs, in a form that can be pickled."""
    collected: list[logging.LogRecord] = []
    handler = QueueHandler(SimpleQueue())
    handler.enqueue = collected.append  # type: ignore[assignment, method-assign]
    ours = logging.getLogger("r1ranker_ir")
    level_before = ours.level
    ours.addHandler(handler)
    ours.setLevel(level)
    try:
        yield collected
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level_before)
