"""Drives many ranking programs in lockstep: gathers their calls, sends one batch, hands each answer back."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from r1ranker_ir.backends.base import AnswersEach, Backend, KeepsStates
from r1ranker_ir.backends.cancelling import check_wanted
from r1ranker_ir.cache.records import key_maker, version_of
from r1ranker_ir.engine.outcomes import FailedRanking, Outcome, ranked_in_order, ranked_or_failed
from r1ranker_ir.engine.repairs import ENOUGH_CALLS, RECENT_CALLS, RepairLimit, RunCounts
from r1ranker_ir.engine.signs import signs_of
from r1ranker_ir.engine.summary import RunSummary as RunSummary
from r1ranker_ir.errors import CallError, ContextLengthError, R1RankerError
from r1ranker_ir.types import Answer, Call, Program, Ranking, Usage

if TYPE_CHECKING:
    from r1ranker_ir.cache.completions import CompletionsCache

logger = logging.getLogger(__name__)

# Errors of one request, which the others do not share.
_OF_ONE = (CallError, ContextLengthError)
_NUMBERS = itertools.count(1)


@dataclass(eq=False)
class _Active:
    """A program under way: its index, the number of its ranking in this process, and the call that it waits for."""

    index: int
    program: Program
    ranking: int
    call: Call | None = None


@dataclass(frozen=True)
class _KeptAnswers:
    """A cache as one backend uses it."""

    cache: CompletionsCache
    key_of: Callable[[Call], bytes]
    version: str


def _open_answers(cache: CompletionsCache | None, backend: Backend) -> _KeptAnswers | None:
    if cache is None:
        return None
    identity = backend.identity
    if reason := identity.get("not_cacheable"):
        logger.warning("the answers of %r are not cached: %s", backend.name, reason)
        return None
    return _KeptAnswers(cache, key_maker(identity), version_of(identity))


class _Answers:
    """What becomes of the calls of a batch: of each an outcome, `None` until it is known."""

    def __init__(self, calls: Sequence[Call], counts: RunCounts) -> None:
        self.calls = calls
        self.counts = counts
        self.outcomes: list[Answer | CallError | None] = [None] * len(calls)
        self.made: list[Answer] = []
        self.seconds = 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Adds what is done meanwhile to the seconds."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started

    def take(self, places: Sequence[int], outcome: Answer | CallError) -> None:
        """Notes what the backend gave for a call, which may stand in several places."""
        self.put(places, outcome)
        if isinstance(outcome, CallError):
            self.counts.note_failure(outcome)
        else:
            self.made.append(outcome)
            self.counts.note_answer()

    def take_known(self, places: dict[bytes, list[int]], found: Mapping[bytes, Answer]) -> None:
        """Notes answers that were found in a cache, and takes their keys out of those that are asked for."""
        for key, answer in found.items():
            self.put(places.pop(key), answer)
            self.counts.note_answer()

    def put(self, places: Sequence[int], outcome: Answer | CallError) -> None:
        """Puts an outcome in its places."""
        for place in places:
            self.outcomes[place] = outcome

    def tallied(self, cache_memory_peak: int) -> RunSummary:
        """What they add to a summary."""
        told = [(call, each) for call, each in zip(self.calls, self.outcomes, strict=True) if isinstance(each, Answer)]
        closed = Counter(answer.closed_at for _, answer in told if answer.thought_closed)
        return RunSummary(
            usage=sum((answer.usage for _, answer in told), Usage()),
            thoughts_closed=closed.total(),
            cut_passages=sum(call.cut_passages for call, _ in told),
            seconds=self.seconds,
            cached_calls=len(told) - len(self.made),
            cut_queries=sum(call.cut_query for call, _ in told),
            # All of them where a server does not tell.
            prompt_tokens_computed=sum(
                each.usage.prompt_tokens if each.prompt_tokens_computed is None else each.prompt_tokens_computed
                for each in self.made
            ),
            cache_memory_peak=cache_memory_peak,
            closed_at_limit=closed["limit"],
            closed_at_end_of_turn=closed["end_of_turn"],
            closed_at_answer=closed["answer"],
        )


class Engine:
    """Runs ranking programs against one backend; may be used from several threads.

    Args:
        backend: answers the calls.
        max_repair_rate: the share of answers that may need repair before a run is stopped. A run of at least 50 calls
            is judged by its own answers; one that is shorter, and passes the rate, by the engine's latest 200.
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
        self._one_by_one = backend if isinstance(backend, AnswersEach) else None
        self._keeps_states = backend if isinstance(backend, KeepsStates) else None
        self._cache = _open_answers(cache, backend)
        self._backend_lock = threading.Lock()
        self._recent: deque[int] = deque(maxlen=RECENT_CALLS)
        self._summary_lock = threading.Lock()
        self.summary = RunSummary()
        """Counts over everything that this engine has run."""

    def _count(self, more: RunSummary) -> None:
        with self._summary_lock:
            self.summary = self.summary + more

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

    def outcomes(self, programs: Iterable[Program]) -> Iterator[tuple[int, Outcome]]:
        """As `stream`, but a program that fails alone is an outcome like others, and no error.

        That is one whose call the backend could not answer, or whose prompt does not fit the model's context. Raised
        is what concerns all: a RepairRateError, a BackendError, or a CancelledRankingError if nobody waits any longer.
        """
        total = len(programs) if isinstance(programs, Sized) else None
        bar: tqdm[Any] = tqdm(total=total, unit="query", disable=None if self.progress else True)
        counts, active = RunCounts(), list[_Active]()
        waiting: Iterator[tuple[int, Program]] | None = iter(enumerate(programs))
        failure: R1RankerError | None = None
        try:
            while True:
                while waiting is not None and len(active) < self.backend.batch_size:
                    try:
                        following = next(waiting, None)
                    except R1RankerError as error:
                        # Such as a missing document: the programs under way are finished before it is said.
                        following, failure = None, error
                    if following is None:
                        waiting = None
                        break
                    entry = _Active(*following, next(_NUMBERS))
                    active.append(entry)
                    if (outcome := self._advance(entry, None, counts)) is not None:
                        self._end(active.pop())
                        bar.update()
                        yield entry.index, outcome
                if not active:
                    if failure is not None:
                        raise failure
                    break
                check_wanted()
                calls = [(entry.call, *entry.call.ahead) for entry in active if entry.call is not None]
                answers, ended_by = self._answer(list(itertools.chain.from_iterable(calls)), counts)
                arrived = iter(answers)
                for entry, asked in zip(list(active), calls, strict=True):
                    told = zip(asked, list(itertools.islice(arrived, len(asked))), strict=True)
                    if (outcome := self._hand_over(entry, told, counts)) is not None:
                        active.remove(entry)
                        self._end(entry)
                        bar.update()
                        yield entry.index, outcome
                if ended_by is not None:
                    raise ended_by
                bar.set_postfix(calls=counts.calls, repairs=counts.repairs)
                self._check_repairs(counts)
        finally:
            bar.close()
            for entry in active:
                self._end(entry)
        self._repair_limit.warn(counts.calls, counts.repairs, self.backend.name)

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
        self, entry: _Active, told: Iterable[tuple[Call, Answer | CallError | None]], counts: RunCounts
    ) -> Outcome | None:
        """Hands answers to a program, what was asked ahead for as long as it goes on to ask that."""
        for call, answer in told:
            if answer is None or call != entry.call:
                break
            if (outcome := self._advance(entry, answer, counts)) is not None:
                return outcome
        return None

    def _advance(self, entry: _Active, answer: Answer | CallError | None, counts: RunCounts) -> Outcome | None:
        """Hands an answer to a program, or starts it; tells what became of it, `None` where it waits for the next."""
        answered, repairs = entry.call, counts.repairs
        before = 0 if answered is None else answered.repairs_before
        question = None if answered is None else answered.question
        started = time.perf_counter()
        try:
            if answer is None:
                call = next(entry.program)
            elif isinstance(answer, CallError):
                call = entry.program.throw(answer)
            else:
                counts.calls += 1
                call = entry.program.send(answer)
        except StopIteration as stop:
            ranking: Ranking = stop.value
            counts.repairs += ranking.repairs - before
            seconds, counts.seconds = counts.seconds + time.perf_counter() - started, 0.0
            signs = signs_of(ranking, None if question is None else question.asks)
            self._count(RunSummary(queries=1, repairs=ranking.repairs, seconds=seconds, signs=signs))
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
            if isinstance(answer, Answer):
                self._recent.append(counts.repairs - repairs)

    def _answer(
        self, calls: Sequence[Call], counts: RunCounts
    ) -> tuple[list[Answer | CallError | None], R1RankerError | None]:
        """Has calls answered; gives what became of each, and what ended the run before all had an outcome."""
        answers = _Answers(calls, counts)
        failure: R1RankerError | None = None
        try:
            self._ask(answers)
        except R1RankerError as error:
            failure = error
        peak = 0 if self._keeps_states is None else self._keeps_states.cache_memory_peak
        self._count(answers.tallied(peak))
        return answers.outcomes, failure

    def _ask(self, answers: _Answers) -> None:
        """Has the backend answer what is not in the cache, and equal calls once; without a cache, everything."""
        kept, places = self._cache, dict[Any, list[int]]()
        with answers.timed():
            for index, call in enumerate(answers.calls):
                places.setdefault(index if kept is None else kept.key_of(call), []).append(index)
            if kept is not None:
                answers.take_known(places, kept.cache.look_up(list(places)))
        if not places:
            return
        # One batch at a time: a model in memory is not safe to use from two threads at once. Seconds count from the
        # lock on: while several threads wait for their turn, the same second would count for each.
        with self._backend_lock, answers.timed():
            check_wanted()
            if kept is not None:
                # While this thread waited, another one may have had the same calls answered.
                answers.take_known(places, kept.cache.look_up(list(places)))
            asked = list(places)
            with contextlib.closing(self._arriving([answers.calls[places[key][0]] for key in asked])) as arriving:
                for together in arriving:
                    new: dict[bytes, Answer] = {}
                    for index, outcome in together:
                        answers.take(places[asked[index]], outcome)
                        if isinstance(outcome, Answer) and not outcome.provisional:
                            new[asked[index]] = outcome
                    # At once, so that nothing is lost that was paid for, whatever becomes of the others; what was
                    # computed together in one step, so that a run that goes on has the same left to put together.
                    if new and kept is not None:
                        for key, first in kept.cache.store(new, model=self.backend.name, version=kept.version).items():
                            answers.put(places[key], first)

    def _arriving(self, calls: Sequence[Call]) -> Generator[list[tuple[int, Answer | CallError]]]:
        """The backend's answers as they come: one by one where it can, else all together."""
        if not calls:
            return
        if self._one_by_one is not None:
            with contextlib.closing(self._one_by_one.answer_each(calls)) as each:
                for outcome in each:
                    yield [outcome]
            return
        answers = self.backend.answer(calls)
        if len(answers) != len(calls):
            raise ValueError(f"backend {self.backend.name!r} gave {len(answers)} answers to {len(calls)} calls")
        yield list(enumerate(answers))
