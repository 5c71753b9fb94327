"""Drives many ranking programs at once: gathers their calls, and hands each answer back."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from r1ranker_ir.backends.base import Backend, KeepsStates, TakesCalls, Turn
from r1ranker_ir.engine.answers import Answers
from r1ranker_ir.engine.gathering import SharedBatches, Told
from r1ranker_ir.engine.outcomes import FailedRanking, Outcome, ranked_in_order, ranked_or_failed
from r1ranker_ir.engine.repairs import ENOUGH_CALLS, RECENT_CALLS, RepairLimit, RunCounts
from r1ranker_ir.engine.signs import signs_of
from r1ranker_ir.engine.summary import RunSummary as RunSummary
from r1ranker_ir.engine.summary import Tally
from r1ranker_ir.errors import CallError, ContextLengthError, R1RankerError
from r1ranker_ir.types import Answer, Call, Program, Ranking

if TYPE_CHECKING:
    from tqdm import tqdm

    from r1ranker_ir.cache.completions import CompletionsCache

# Errors of one request, which the others do not share.
_OF_ONE = (CallError, ContextLengthError)
_NUMBERS = itertools.count(1)
_IN_A_ROW = 2


@dataclass(eq=False)
class _Flight:
    """A call under way: what is known of it, or a future, which may be that of an equal call; `told` once it landed."""

    call: Call
    key: bytes
    known: Told | None = None
    future: Future[Answer] | None = None
    shared: bool = False
    told: Told | CallError | None = None


@dataclass(eq=False)
class _Active:
    """A program under way: its index, the number of its ranking in this process, and the call that it waits for."""

    index: int
    program: Program
    ranking: int
    call: Call | None = None
    answered: int = 0
    flights: list[_Flight] = field(default_factory=list)

    @property
    def turn(self) -> Turn:
        """When it may ask: rankings keep up with each other, but each asks a few times in a row.

        What it begins with is then still in a server's prefix cache, and no ranking is left over at the end.
        """
        return self.answered // _IN_A_ROW, self.ranking

    def asked(self) -> list[Call]:
        """The call that it waits for, and those that it will make next, whatever is answered."""
        return [] if self.call is None else [self.call, *self.call.ahead]


_Arrived = queue.SimpleQueue[tuple[_Active, _Flight]]


class _Run:
    """What one caller has ranked: programs that wait, those under way, and counts."""

    def __init__(self, programs: Iterable[Program], most: int, bar: tqdm[Any]) -> None:
        self.counts = RunCounts()
        self.active: list[_Active] = []
        self.bar = bar
        self._waiting: Iterator[tuple[int, Program]] | None = iter(enumerate(programs))
        self._most = most
        self._failure: R1RankerError | None = None
        self.stop = threading.Event()
        self.asked: dict[bytes, Future[Answer]] = {}

    def following(self) -> _Active | None:
        """Takes the next program, if there is room for it; what taking one raises is kept for the end."""
        if self._waiting is None or len(self.active) >= self._most:
            return None
        try:
            following = next(self._waiting, None)
        except R1RankerError as error:
            # Such as a missing document: the programs under way are finished before it is said.
            following, self._failure = None, error
        if following is None:
            self._waiting = None
            return None
        self.active.append(_Active(*following, next(_NUMBERS)))
        return self.active[-1]

    def check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class Engine:
    """Runs ranking programs against one backend; may be used from several threads.

    Args:
        backend: answers the calls.
        max_repair_rate: the share of answers that may need repair before a run is stopped.
            A run of at least 50 calls is judged by its own answers; one that is shorter, and passes the rate, by the
            engine's latest 200, of all runs together.
        progress: show a progress bar on a terminal.
        cache: where answers are looked for before the backend is asked, and kept as soon as each of them is there. It
            stays the caller's to close. A backend whose `identity` says that it is not cacheable goes without.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_repair_rate: float = 0.2,
        progress: bool = False,
        cache: CompletionsCache | None = None,
    ) -> None:
        self.backend = backend
        self.max_repair_rate = max_repair_rate
        self.progress = progress
        self._repair_limit = RepairLimit(max_repair_rate)
        # Told once: to look at a protocol's members takes as long as an engine's work on several calls.
        self._takes_calls = backend if isinstance(backend, TakesCalls) else None
        self._keeps_states = backend if isinstance(backend, KeepsStates) else None
        self._recent: deque[int] = deque(maxlen=RECENT_CALLS)
        self._tally = Tally()
        self._answers = Answers(backend, cache, self._tally)
        self._shared = SharedBatches(self._answers.made, backend.batch_size)

    @property
    def summary(self) -> RunSummary:
        """Counts over everything that this engine has run."""
        return self._tally.summary

    def run(self, programs: Iterable[Program]) -> list[Ranking]:
        """Runs programs to their end and returns their rankings, in the programs' order.

        Raises a FailedRankingsError if some failed, once all others are finished; a program that is alone fails with
        its own error. The `rankings` of whatever is raised are those that were finished.
        """
        count = len(programs) if isinstance(programs, Sized) else None
        return ranked_in_order(self.outcomes(programs), count)

    def stream(self, programs: Iterable[Program]) -> Iterator[tuple[int, Ranking]]:
        """Runs programs, as many at once as the backend likes to get calls, and yields each as it finishes.

        Programs are taken one by one as places become free, so a long list is never held in memory. What taking one
        raises comes after the programs under way have been finished, a FailedRankingsError at the very end; what was
        yielded before an error stays valid.
        """
        return ranked_or_failed(self.outcomes(programs))

    def outcomes(self, programs: Iterable[Program], total: int | None = None) -> Iterator[tuple[int, Outcome]]:
        """As `stream`, but a program that fails alone is an outcome like others, and no error.

        `total` says how many there will be, for the progress bar, where they are no list.

        That is one whose call the backend could not answer, or whose prompt does not fit the model's context. Raised
        is what concerns all: a RepairRateError, a BackendError, or a CancelledRankingError if nobody waits any longer.
        """
        from tqdm import tqdm  # reads TQDM_DISABLE when it is first imported, and the command line sets it before that

        total = len(programs) if isinstance(programs, Sized) else total
        bar: tqdm[Any] = tqdm(total=total, unit="query", disable=None if self.progress else True)
        run = _Run(programs, self.backend.batch_size, bar)
        try:
            if self._takes_calls is None:
                with self._shared.run():
                    yield from self._in_batches(run)
            else:
                yield from self._as_answered(run, self._takes_calls)
            run.check_failure()
        finally:
            bar.close()
            for entry in run.active:
                self._end(entry)
        self._repair_limit.warn(run.counts.calls, run.counts.repairs, self.backend.name)

    async def rank_async(self, program: Program) -> Ranking:
        """Runs one program without a thread of its own; a task that is cancelled makes no further calls.

        Raises what `run` raises of a program that is alone.
        """
        counts, entry = RunCounts(), _Active(0, program, next(_NUMBERS))
        try:
            with self._shared.run(entry):
                outcome = self._advance(entry, None, counts)
                while outcome is None:
                    calls = entry.asked()
                    outcome = self._hand_over(entry, calls, await self._told_async(calls, entry, counts), counts)
                    self._check_repairs(counts)
        finally:
            self._end(entry)
        if isinstance(outcome, FailedRanking):
            raise outcome.error
        self._repair_limit.warn(counts.calls, counts.repairs, self.backend.name)
        return outcome

    def _in_batches(self, run: _Run) -> Iterator[tuple[int, Outcome]]:
        """Runs programs in lockstep, for a backend that answers whole batches."""
        while True:
            while (entry := run.following()) is not None:
                if (outcome := self._advance(entry, None, run.counts)) is not None:
                    yield self._finished(run, entry, outcome)
            if not run.active:
                return
            asked = [entry.asked() for entry in run.active]
            calls = list(itertools.chain.from_iterable(asked))
            keyed = self._answers.keyed(calls)
            told = self._answers.known(keyed)
            if left := [place for place, each in enumerate(told) if each is None]:
                made = self._shared.answer([keyed[place] for place in left], run.active[0].ranking)
                for place, each in zip(left, made, strict=True):
                    told[place] = each
            arrived = iter(self._counted(calls, told, run.counts))
            for entry, own in zip(list(run.active), asked, strict=True):
                outcome = self._hand_over(entry, own, list(itertools.islice(arrived, len(own))), run.counts)
                if outcome is not None:
                    yield self._finished(run, entry, outcome)
            self._show(run)

    def _as_answered(self, run: _Run, backend: TakesCalls) -> Iterator[tuple[int, Outcome]]:
        """Runs programs each at its own pace: the next call of each goes out as soon as its answer is in."""
        arrived: _Arrived = queue.SimpleQueue()
        ended_by: BaseException | None = None
        try:
            while True:
                while ended_by is None and (entry := run.following()) is not None:
                    outcome = self._advance(entry, None, run.counts)
                    if outcome is not None:
                        yield self._finished(run, entry, outcome)
                    else:
                        self._send(run, entry, backend, arrived)
                if all(flight.told is not None for entry in run.active for flight in entry.flights):
                    break
                entry, flight = arrived.get()
                try:
                    self._land(flight, run.counts)
                except Exception as error:
                    # What is under way is paid for, so it is waited for; nothing is begun any more.
                    ended_by = ended_by or error
                    run.stop.set()
                if flight.told is None:
                    entry.flights.remove(flight)
                if entry not in run.active:
                    continue
                outcome = self._advance_landed(entry, run.counts)
                if outcome is not None:
                    yield self._finished(run, entry, outcome)
                elif ended_by is None:
                    self._send(run, entry, backend, arrived)
                if ended_by is None:
                    self._show(run)
        finally:
            for entry in run.active:
                _cancel(entry)
        if ended_by is not None:
            raise ended_by

    def _send(self, run: _Run, entry: _Active, backend: TakesCalls, arrived: _Arrived) -> None:
        """Sends what a program waits for and is not under way yet."""
        under_way = [flight.call for flight in entry.flights]
        new = self._answers.keyed([call for call in entry.asked() if call not in under_way])
        for (call, key), known in zip(new, self._answers.known(new), strict=True):
            flight = _Flight(call, key, known)
            entry.flights.append(flight)
            if known is not None:
                arrived.put((entry, flight))
                continue
            flight.shared = key in run.asked
            flight.future = (
                run.asked[key] if flight.shared else self._answers.begin(backend, call, entry.turn, run.stop)
            )
            if key:
                run.asked[key] = flight.future
            flight.future.add_done_callback(partial(_arrive, arrived, entry, flight))

    def _land(self, flight: _Flight, counts: RunCounts) -> None:
        """Takes what became of a call: an answer is kept and counted; raises what concerns all calls."""
        if flight.future is None:
            flight.told = flight.known
        elif not flight.future.cancelled():
            error = flight.future.exception()
            if isinstance(error, CallError):
                flight.told = error
            elif error is not None:
                raise error
            else:
                flight.told = self._answers.keep(flight.key, flight.future.result()), not flight.shared
        if flight.told is not None:
            self._counted([flight.call], [flight.told], counts)

    def _advance_landed(self, entry: _Active, counts: RunCounts) -> Outcome | None:
        """Hands over answers that are there, for as long as they are what the program waits for."""
        while True:
            landed = [each for each in entry.flights if each.told is not None and each.call == entry.call]
            if not landed:
                return None
            entry.flights.remove(landed[0])
            if (outcome := self._advance(entry, landed[0].told, counts)) is not None:
                return outcome

    async def _told_async(self, calls: Sequence[Call], entry: _Active, counts: RunCounts) -> list[Told | CallError]:
        keyed = self._answers.keyed(calls)
        told: list[Told | CallError | None] = [*self._answers.known(keyed)]
        left = [place for place, each in enumerate(told) if each is None]
        asked = [keyed[place] for place in left]
        if asked and self._takes_calls is None:
            for place, made in zip(left, await self._shared.answer_async(asked, entry.ranking), strict=True):
                told[place] = made
        elif self._takes_calls is not None:
            stop = threading.Event()
            futures = [self._answers.begin(self._takes_calls, call, entry.turn, stop) for call, _ in asked]
            outcomes = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
            for place, (_, key), outcome in zip(left, asked, outcomes, strict=True):
                if isinstance(outcome, Answer):
                    told[place] = self._answers.keep(key, outcome), True
                elif isinstance(outcome, CallError):
                    told[place] = outcome
                else:
                    raise outcome
        return self._counted(calls, told, counts)

    def _counted(
        self, calls: Sequence[Call], told: Sequence[Told | CallError | None], counts: RunCounts
    ) -> list[Told | CallError]:
        """Counts what became of calls; raises a BackendError if so many have failed that others would as well."""
        peak = 0 if self._keeps_states is None else self._keeps_states.cache_memory_peak
        here = [each for each in told if each is not None]
        self._tally.add(_tallied(calls, here), cache_memory_peak=peak)
        for each in here:
            if isinstance(each, CallError):
                counts.note_failure(each)
            else:
                counts.note_answer()
        return here

    def _finished(self, run: _Run, entry: _Active, outcome: Outcome) -> tuple[int, Outcome]:
        run.active.remove(entry)
        self._end(entry)
        run.bar.update()
        return entry.index, outcome

    def _show(self, run: _Run) -> None:
        run.bar.set_postfix(calls=run.counts.calls, repairs=run.counts.repairs)
        self._check_repairs(run.counts)

    def _end(self, entry: _Active) -> None:
        if self._keeps_states is not None:
            self._keeps_states.forget(entry.ranking)

    def _check_repairs(self, counts: RunCounts) -> None:
        """Raises a RepairRateError where a run passes the limit, by the latest ones before it where it is short."""
        calls, repairs = counts.calls, counts.repairs
        if calls < ENOUGH_CALLS and self._repair_limit.is_passed(calls, repairs):
            latest = list(self._recent)
            calls, repairs = len(latest), sum(latest)
        self._repair_limit.check(calls, repairs, self.backend.name)

    def _hand_over(
        self, entry: _Active, calls: Sequence[Call], told: Sequence[Told | CallError], counts: RunCounts
    ) -> Outcome | None:
        """Hands answers to a program, what was asked ahead for as long as it goes on to ask that."""
        for call, each in zip(calls, told, strict=True):
            if call != entry.call:
                break
            if (outcome := self._advance(entry, each, counts)) is not None:
                return outcome
        return None

    def _advance(self, entry: _Active, told: Told | CallError | None, counts: RunCounts) -> Outcome | None:
        """Hands an answer to a program, or starts it; tells what became of it, `None` where it waits for the next."""
        answered, repairs = entry.call, counts.repairs
        before = 0 if answered is None else answered.repairs_before
        question = None if answered is None else answered.question
        started = time.perf_counter()
        try:
            if told is None:
                call = next(entry.program)
            elif isinstance(told, CallError):
                call = entry.program.throw(told)
            else:
                counts.calls += 1
                entry.answered += 1
                call = entry.program.send(told[0])
        except StopIteration as stop:
            ranking: Ranking = stop.value
            counts.repairs += ranking.repairs - before
            seconds, counts.seconds = counts.seconds + time.perf_counter() - started, 0.0
            signs = signs_of(ranking, None if question is None else question.decided.asks)
            self._tally.add({"queries": 1, "repairs": ranking.repairs, "seconds": seconds}, signs=signs)
            return ranking
        except _OF_ONE as error:
            return FailedRanking(error, "" if question is None else question.request.query_id)
        else:
            # Counted with its run's next ranking: to add it up for each call would take longer.
            counts.seconds += time.perf_counter() - started
            counts.repairs += call.repairs_before - before
            # Only a backend that keeps states looks at the number.
            if self._keeps_states is not None:
                ahead = tuple(replace(each, ranking=entry.ranking) for each in call.ahead)
                call = replace(call, ranking=entry.ranking, ahead=ahead)
            entry.call = call
            return None
        finally:
            if told is not None and not isinstance(told, CallError):
                self._recent.append(counts.repairs - repairs)


def _arrive(arrived: _Arrived, entry: _Active, flight: _Flight, _: Future[Answer]) -> None:
    arrived.put((entry, flight))


def _cancel(entry: _Active) -> None:
    for flight in entry.flights:
        if flight.future is not None:
            flight.future.cancel()


def _tallied(calls: Sequence[Call], told: Sequence[Told | CallError]) -> dict[str, float]:
    """What calls add to a `RunSummary`."""
    sums = defaultdict[str, float](int)
    for call, each in zip(calls, told, strict=True):
        if isinstance(each, CallError):
            continue
        answer, made = each
        sums["calls"] += answer.usage.calls
        sums["prompt_tokens"] += answer.usage.prompt_tokens
        sums["completion_tokens"] += answer.usage.completion_tokens
        sums["cut_passages"] += call.cut_passages
        sums["cut_queries"] += call.cut_query
        if answer.thought_closed:
            sums["thoughts_closed"] += 1
            if answer.closed_at is not None:
                sums[f"closed_at_{answer.closed_at}"] += 1
        if answer.chosen_by is not None:
            sums[f"chosen_by_{answer.chosen_by}"] += 1
        if not made:
            sums["cached_calls"] += 1
            continue
        computed = answer.prompt_tokens_computed
        # All of them where a server does not tell.
        sums["prompt_tokens_computed"] += answer.usage.prompt_tokens if computed is None else computed
    return sums
