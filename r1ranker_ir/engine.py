"""Drives many ranking programs in lockstep: gathers their calls, sends one batch, hands each answer back."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from r1ranker_ir.backends.base import AnswersEach, Backend, KeepsStates
from r1ranker_ir.cache_records import key_maker, version_of
from r1ranker_ir.cancelling import check_wanted
from r1ranker_ir.closed_thoughts import count_closed, of_many
from r1ranker_ir.errors import (
    BackendError,
    CallError,
    ContextLengthError,
    InputError,
    R1RankerError,
    RepairRateError,
)
from r1ranker_ir.outcomes import FailedRanking, Outcome, failed_rankings, log_failed
from r1ranker_ir.signs import NO_SIGNS, Signs, signs_of
from r1ranker_ir.types import Answer, Call, Program, Ranking, Usage

if TYPE_CHECKING:
    from r1ranker_ir.cache import CompletionsCache

logger = logging.getLogger(__name__)

RECENT_CALLS = 200
"""How many of an engine's latest answers count where its runs are too short for a rate of their own."""
# Errors of one request, which the others do not share.
_OF_ONE = (CallError, ContextLengthError)
# So many calls that fail one after the other are no longer the fault of each.
_FAILURES_IN_A_ROW = 10
_REFUSALS_WITHOUT_ANSWER = 20


@dataclass(frozen=True)
class RunSummary:
    """What an engine has done so far.

    Args:
        queries: rankings finished.
        usage: calls and tokens, of unfinished rankings too.
        repairs: answers that had to be repaired, in finished rankings.
        thoughts_closed: thoughts that the model did not close.
        cut_passages: passages shortened to fit, counted per call.
        seconds: time spent on prompts and model calls, waiting for other threads' calls not included.
        cached_calls: how many of `usage.calls` were not made, since their answers were in the cache or came with
            another call's of the same batch; usage counts them like the others.
        cut_queries: calls whose query was shortened.
        prompt_tokens_computed: how many of `usage.prompt_tokens` the model read, and did not know from a call before:
            none where the answer was cached, all of them on a server that does not tell.
        cache_memory_peak: the most bytes that the backend has kept between calls, of one process.
        closed_at_limit: how many of `thoughts_closed` ran into the limit.
        closed_at_end_of_turn: within how many of them the model ended its turn.
        closed_at_answer: how many of them went over to the answer. What is left was answered by a version or a backend
            that did not record it.
        signs: whether answers name one place, grades are equal and orders those that went in; see `signs.sentences`.
    """

    queries: int = 0
    usage: Usage = field(default_factory=Usage)
    repairs: int = 0
    thoughts_closed: int = 0
    cut_passages: int = 0
    seconds: float = 0.0
    cached_calls: int = 0
    cut_queries: int = 0
    prompt_tokens_computed: int = 0
    cache_memory_peak: int = 0
    closed_at_limit: int = 0
    closed_at_end_of_turn: int = 0
    closed_at_answer: int = 0
    signs: Signs = NO_SIGNS

    @property
    def closed_thoughts(self) -> str:
        """How many thoughts the model did not close, and where they ended, in words; empty if there are none."""
        return of_many(
            self.thoughts_closed,
            limit=self.closed_at_limit,
            end_of_turn=self.closed_at_end_of_turn,
            answer=self.closed_at_answer,
        )

    def __add__(self, other: RunSummary) -> RunSummary:
        added = RunSummary(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))
        return replace(added, cache_memory_peak=max(self.cache_memory_peak, other.cache_memory_peak))

    def since(self, before: RunSummary) -> RunSummary:
        """What was done between two looks at one engine's summary; the peak is that of all its time."""

        def differences(now: Any, then: Any) -> dict[str, Any]:
            names = (each.name for each in fields(now) if each.name != "usage")
            return {name: getattr(now, name) - getattr(then, name) for name in names}

        spent = differences(self, before) | {"cache_memory_peak": self.cache_memory_peak}
        return RunSummary(usage=Usage(**differences(self.usage, before.usage)), **spent)


@dataclass(frozen=True)
class RepairLimit:
    """When a run is stopped, because too many of its answers had to be repaired.

    Args:
        max_rate: the share of answers that may need repair.
        min_calls: of how many calls a rate says something.

    Raises:
        InputError: if max_rate is not between 0 and 1.
    """

    max_rate: float = 0.2
    min_calls: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.max_rate <= 1:
            raise InputError(f"max_repair_rate is {self.max_rate}: give a share from 0 to 1")

    def check(self, calls: int, repairs: int, model: str) -> None:
        """Looks at a run's counts so far.

        Args:
            calls: how many calls it has made.
            repairs: how many of their answers had to be repaired.
            model: who answered, for the message.

        Raises:
            RepairRateError: if the limit is passed.
        """
        if calls < self.min_calls or not self.is_passed(calls, repairs):
            return
        raise RepairRateError(
            f"{repairs} of {calls} answers of {model!r} had to be repaired ({repairs / calls:.0%}, more than "
            f"max_repair_rate {self.max_rate:.0%}): the model does not keep to the answer format, and the ranking "
            "would be mostly the first stage's. Look at a step's text in the trace; use a model that follows "
            "instructions, a larger max_thought_tokens, or raise max_repair_rate."
        )

    def is_passed(self, calls: int, repairs: int) -> bool:
        """Whether more than the share is repaired, of however few calls."""
        return calls > 0 and repairs / calls > self.max_rate

    def warn(self, calls: int, repairs: int, model: str) -> None:
        """Says at the end of a run that it was too short to be stopped, and would have been.

        Args:
            calls: how many calls it has made.
            repairs: how many of their answers had to be repaired.
            model: who answered, for the message.
        """
        if calls < self.min_calls and self.is_passed(calls, repairs):
            logger.warning(
                "%d of %d answers of %r had to be repaired (%.0f%%): what can't be used is completed from the first "
                "stage's order. Look at a step's text in the trace before you rely on these rankings",
                repairs,
                calls,
                model,
                100 * repairs / calls,
            )


@dataclass
class _Active:
    """A program that waits for an answer."""

    index: int
    program: Program
    call: Call
    ranking: int


_NUMBERS = itertools.count(1)


class _OpenRankings:
    """Numbers the rankings of a run, and has the backend forget them as they end, with the run at the latest."""

    def __init__(self, backend: Backend) -> None:
        self._forget = backend.forget if isinstance(backend, KeepsStates) else None
        self._open: set[int] = set()

    def begin(self) -> int:
        """Gives a number that no other ranking of this process has."""
        number = next(_NUMBERS)
        self._open.add(number)
        return number

    def end(self, number: int) -> None:
        """Closes a ranking."""
        self._open.remove(number)
        if self._forget is not None:
            self._forget(number)

    def __enter__(self) -> _OpenRankings:
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._open):
            self.end(number)


@dataclass
class _RunCounts:
    """Calls and repairs of one run, for its repair limit, and seconds of its programs that are not counted yet."""

    calls: int = 0
    repairs: int = 0
    seconds: float = 0.0
    answered: bool = False
    refused: int = 0
    failures_in_a_row: int = 0

    def note_failure(self, error: CallError) -> None:
        """Counts a failed call.

        Raises:
            BackendError: if so many have failed that others would as well.
        """
        self.refused += error.refused
        self.failures_in_a_row += not error.refused
        if not self.answered and self.refused == _REFUSALS_WITHOUT_ANSWER:
            raise BackendError(
                f"the first {self.refused} calls were all refused, so the run is stopped; the latest: {error}"
            )
        if self.failures_in_a_row == _FAILURES_IN_A_ROW:
            raise BackendError(
                f"{self.failures_in_a_row} calls failed one after the other, so the run is stopped; the latest: {error}"
            )

    def note_answer(self) -> None:
        """Counts a call that was answered, or whose answer was known."""
        self.answered, self.failures_in_a_row = True, 0


class _RecentRepairs:
    """The repairs of an engine's latest answers, over all of its runs and threads."""

    def __init__(self) -> None:
        self._repairs: deque[int] = deque(maxlen=RECENT_CALLS)
        self._lock = threading.Lock()

    def add(self, repairs: int) -> None:
        """Counts an answer."""
        with self._lock:
            self._repairs.append(repairs)

    def check(self, limit: RepairLimit, model: str) -> None:
        """Raises a RepairRateError if they pass a limit."""
        with self._lock:
            calls, repairs = len(self._repairs), sum(self._repairs)
        limit.check(calls, repairs, model)


@dataclass(frozen=True)
class _KeptAnswers:
    """A cache as one backend uses it."""

    cache: CompletionsCache
    key_of: Callable[[Call], bytes]
    version: str


def _open_answers(cache: CompletionsCache, backend: Backend) -> _KeptAnswers | None:
    identity = backend.identity
    if reason := identity.get("not_cacheable"):
        logger.warning("the answers of %r are not cached: %s", backend.name, reason)
        return None
    return _KeptAnswers(cache, key_maker(identity), version_of(identity))


class _Answers:
    """What becomes of the calls of a batch.

    Args:
        outcomes: of each call, `None` until it is known.
        counts: of the run.
    """

    def __init__(self, outcomes: list[Answer | CallError | None], counts: _RunCounts) -> None:
        self.outcomes = outcomes
        self.made: list[Answer] = []
        self.seconds = 0.0
        self._counts = counts

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Adds what is done meanwhile to the seconds."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started

    def take(self, places: Sequence[int], outcome: Answer | CallError) -> None:
        """Notes what the backend gave for a call, which may stand in several places.

        Raises:
            BackendError: if so many calls have failed that others would as well.
        """
        self.replace(places, outcome)
        if isinstance(outcome, CallError):
            self._counts.note_failure(outcome)
        else:
            self.made.append(outcome)
            self._counts.note_answer()

    def take_known(self, places: dict[bytes, list[int]], found: Mapping[bytes, Answer]) -> None:
        """Notes answers that were found in a cache, and takes their keys out of those that are asked for."""
        for key, answer in found.items():
            self.replace(places.pop(key), answer)
            self._counts.note_answer()

    def replace(self, places: Sequence[int], outcome: Answer | CallError) -> None:
        """Puts an outcome in its places."""
        for place in places:
            self.outcomes[place] = outcome


class Engine:
    """Runs ranking programs against one backend; may be used from several threads.

    Args:
        backend: answers the calls.
        max_repair_rate: the share of answers that may need repair before a run is stopped.
        min_calls_for_repair_rate: of how many calls a rate says something. A run of at least as many is judged by its
            own answers; one that is shorter, and passes the rate, by the engine's latest 200, of all runs together.
        progress: show a progress bar on a terminal.
        cache: where answers are looked for before the backend is asked, and kept as soon as each of them is there. It
            stays the caller's to close. A backend whose `identity` says that it is not cacheable goes without.

    Raises:
        InputError: if max_repair_rate is not between 0 and 1.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_repair_rate: float = 0.2,
        min_calls_for_repair_rate: int = 50,
        progress: bool = False,
        cache: CompletionsCache | None = None,
    ) -> None:
        self._repair_limit = RepairLimit(max_repair_rate, min_calls_for_repair_rate)
        self.backend = backend
        self.max_repair_rate = max_repair_rate
        self.min_calls_for_repair_rate = min_calls_for_repair_rate
        self.progress = progress
        self._cache = None if cache is None else _open_answers(cache, backend)
        self._backend_lock = threading.Lock()
        self._recent = _RecentRepairs()
        self._summary_lock = threading.Lock()
        self._summary = RunSummary()

    @property
    def summary(self) -> RunSummary:
        """Counts over everything that this engine has run."""
        return self._summary

    def run(self, programs: Iterable[Program]) -> list[Ranking]:
        """Runs programs to their end.

        Args:
            programs: one a request.

        Returns:
            Their rankings, in the programs' order.

        Raises:
            FailedRankingsError: if some programs failed, once all others are finished; a program that is alone fails
                with its own error.
            R1RankerError: what ended the run before. In each of these, `rankings` are those that were finished.
        """
        count = len(programs) if isinstance(programs, Sized) else None
        return ranked_in_order(self.outcomes(programs), count)

    def stream(self, programs: Iterable[Program]) -> Iterator[tuple[int, Ranking]]:
        """Runs programs, as many at once as the backend likes to get calls, and yields each as it finishes.

        Args:
            programs: taken one by one as places become free, so a long list is never held in memory.

        Yields:
            The program's index and its ranking.

        Raises:
            FailedRankingsError: if some programs failed, once all others are finished.
            RepairRateError: if too many answers needed repair; what was yielded before stays valid.
            R1RankerError: what taking a program raises, after the programs under way have been finished.
        """
        return ranked_or_failed(self.outcomes(programs))

    def outcomes(self, programs: Iterable[Program]) -> Iterator[tuple[int, Outcome]]:
        """As `stream`, but a program that fails alone is an outcome like others, and no error.

        That is one whose call the backend could not answer, or whose prompt does not fit the model's context.

        Args:
            programs: as for `stream`.

        Yields:
            The program's index and its ranking, or why there is none.

        Raises:
            RepairRateError: if too many answers needed repair.
            BackendError: what concerns all programs, after those that were finished by the answers until then.
            CancelledRankingError: if nobody waits for the rankings any longer, see `r1ranker_ir.cancelling`.
            R1RankerError: what taking a program raises, after the programs under way have been finished.
        """
        counts = _RunCounts()
        yield from self._outcomes(programs, counts)
        self._repair_limit.warn(counts.calls, counts.repairs, self.backend.name)

    def _outcomes(self, programs: Iterable[Program], counts: _RunCounts) -> Iterator[tuple[int, Outcome]]:
        total = len(programs) if isinstance(programs, Sized) else None
        bar: tqdm[Any] = tqdm(total=total, unit="query", disable=None if self.progress else True)
        waiting = iter(enumerate(programs))
        active: list[_Active] = []
        exhausted = False
        failure: R1RankerError | None = None
        with bar, _OpenRankings(self.backend) as rankings:
            while True:
                while not exhausted and len(active) < self.backend.batch_size:
                    try:
                        following = next(waiting, None)
                    except R1RankerError as error:
                        # Such as a missing document: the programs under way are finished before it is said.
                        following, failure = None, error
                    if following is None:
                        exhausted = True
                        break
                    number = rankings.begin()
                    started = self._advance(*following, None, counts, number)
                    if isinstance(started, _Active):
                        active.append(started)
                    else:
                        rankings.end(number)
                        bar.update()
                        yield following[0], started
                if not active:
                    if failure is not None:
                        raise failure
                    return
                check_wanted()
                calls = [call for entry in active for call in (entry.call, *entry.call.ahead)]
                answers, ended_by = self._answer(calls, counts)
                still_active, outcomes = [], iter(zip(calls, answers, strict=True))
                for entry in active:
                    told = deque(itertools.islice(outcomes, 1 + len(entry.call.ahead)))
                    if told[0][1] is None:
                        continue
                    advanced: _Active | Outcome = entry
                    # What was asked ahead is answered as long as the program goes on to ask it.
                    while isinstance(advanced, _Active) and told and told[0][0] == advanced.call:
                        answer = told.popleft()[1]
                        if answer is None:
                            break
                        call = advanced.call
                        advanced = self._advance(entry.index, entry.program, answer, counts, entry.ranking, call)
                    if isinstance(advanced, _Active):
                        still_active.append(advanced)
                    else:
                        rankings.end(entry.ranking)
                        bar.update()
                        yield entry.index, advanced
                if ended_by is not None:
                    raise ended_by
                active = still_active
                bar.set_postfix(calls=counts.calls, repairs=counts.repairs)
                self._check_repairs(counts)

    def _check_repairs(self, counts: _RunCounts) -> None:
        """Raises a RepairRateError where a run passes the limit, by the latest ones before it where it is short."""
        if counts.calls >= self._repair_limit.min_calls:
            self._repair_limit.check(counts.calls, counts.repairs, self.backend.name)
        elif self._repair_limit.is_passed(counts.calls, counts.repairs):
            self._recent.check(self._repair_limit, self.backend.name)

    def _advance(
        self,
        index: int,
        program: Program,
        answer: Answer | CallError | None,
        counts: _RunCounts,
        number: int,
        answered: Call | None = None,
    ) -> _Active | Outcome:
        """Hands an answer to a program, or starts it; returns what it waits for, or what became of it."""
        before = answered.repairs_before if answered is not None else 0
        started, repairs = time.perf_counter(), counts.repairs
        try:
            if answer is None:
                call = next(program)
            elif isinstance(answer, CallError):
                call = program.throw(answer)
            else:
                counts.calls += 1
                call = program.send(answer)
        except StopIteration as stop:
            ranking: Ranking = stop.value
            counts.repairs += ranking.repairs - before
            seconds, counts.seconds = counts.seconds + time.perf_counter() - started, 0.0
            question = None if answered is None else answered.question
            signs = signs_of(ranking, None if question is None else question.asks)
            self._count(queries=1, repairs=ranking.repairs, seconds=seconds, signs=signs)
            return ranking
        except _OF_ONE as error:
            request = answered.question.request if answered is not None and answered.question is not None else None
            return FailedRanking(error, request.query_id if request is not None else "")
        else:
            # Counted with its run's next batch or ranking: to add up a summary for each call would take longer.
            counts.seconds += time.perf_counter() - started
            counts.repairs += call.repairs_before - before
            ahead = tuple(replace(each, ranking=number) for each in call.ahead)
            return _Active(index, program, replace(call, ranking=number, ahead=ahead), number)
        finally:
            if isinstance(answer, Answer):
                self._recent.add(counts.repairs - repairs)

    def _answer(
        self, calls: list[Call], counts: _RunCounts
    ) -> tuple[list[Answer | CallError | None], R1RankerError | None]:
        """Has calls answered; gives what became of each, and what ended the run before all had an outcome."""
        answers = _Answers([None] * len(calls), counts)
        failure: R1RankerError | None = None
        try:
            if self._cache is None:
                self._ask(calls, answers)
            else:
                self._ask_once(calls, self._cache, answers)
        except R1RankerError as error:
            failure = error
        answered = [
            (call, answer) for call, answer in zip(calls, answers.outcomes, strict=True) if isinstance(answer, Answer)
        ]
        closed = count_closed([answer for _, answer in answered])
        self._count(
            usage=sum((answer.usage for _, answer in answered), Usage()),
            thoughts_closed=sum(answer.thought_closed for _, answer in answered),
            cut_passages=sum(call.cut_passages for call, _ in answered),
            seconds=answers.seconds,
            cached_calls=len(answered) - len(answers.made),
            cut_queries=sum(call.cut_query for call, _ in answered),
            prompt_tokens_computed=sum(map(_computed, answers.made)),
            cache_memory_peak=self.backend.cache_memory_peak if isinstance(self.backend, KeepsStates) else 0,
            **{f"closed_at_{where}": count for where, count in closed.items()},
        )
        return answers.outcomes, failure

    def _ask(self, calls: Sequence[Call], answers: _Answers) -> None:
        """Has the backend answer."""
        # One batch at a time: a model in memory is not safe to use from two threads at once. Seconds count from the
        # lock on: while several threads wait for their turn, the same second would count for each.
        with self._backend_lock, answers.timed(), contextlib.closing(self._arriving(calls)) as arriving:
            check_wanted()
            for index, outcome in itertools.chain.from_iterable(arriving):
                answers.take([index], outcome)

    def _ask_once(self, calls: list[Call], kept: _KeptAnswers, answers: _Answers) -> None:
        """As `_ask`, but only for what is not in the cache, and for equal calls once."""
        places: dict[bytes, list[int]] = {}
        with answers.timed():
            for index, call in enumerate(calls):
                places.setdefault(kept.key_of(call), []).append(index)
            answers.take_known(places, kept.cache.look_up(list(places)))
        if not places:
            return
        with self._backend_lock, answers.timed():
            check_wanted()
            # While this thread waited, another one may have had the same calls answered.
            answers.take_known(places, kept.cache.look_up(list(places)))
            asked = list(places)
            with contextlib.closing(self._arriving([calls[places[key][0]] for key in asked])) as arriving:
                for together in arriving:
                    new: dict[bytes, Answer] = {}
                    for index, outcome in together:
                        answers.take(places[asked[index]], outcome)
                        if isinstance(outcome, Answer) and not outcome.provisional:
                            new[asked[index]] = outcome
                    # At once, so that nothing is lost that was paid for, whatever becomes of the others; what was
                    # computed together in one step, so that a run that goes on has the same left to put together.
                    if new:
                        for key, first in kept.cache.store(new, model=self.backend.name, version=kept.version).items():
                            answers.replace(places[key], first)

    def _arriving(self, calls: Sequence[Call]) -> Generator[list[tuple[int, Answer | CallError]]]:
        """The backend's answers as they come: one by one where it can, else all together."""
        if not calls:
            return
        if isinstance(self.backend, AnswersEach):
            with contextlib.closing(self.backend.answer_each(calls)) as each:
                for outcome in each:
                    yield [outcome]
            return
        answers = self.backend.answer(calls)
        if len(answers) != len(calls):
            raise ValueError(f"backend {self.backend.name!r} gave {len(answers)} answers to {len(calls)} calls")
        yield list(enumerate(answers))

    def _count(self, *, usage: Usage | None = None, **counted: Any) -> None:
        spent = RunSummary(usage=usage or Usage(), **counted)
        with self._summary_lock:
            self._summary += spent


def ranked_in_order(outcomes: Iterable[tuple[int, Outcome]], count: int | None = None) -> list[Ranking]:
    """Gathers outcomes that arrive in any order.

    Args:
        outcomes: pairs of index and outcome.
        count: how many there will be, where that is known.

    Returns:
        The rankings by index.

    Raises:
        FailedRankingsError: if some have failed; one that is alone raises its own error.
        R1RankerError: what the outcomes end with. In both, `rankings` are those that were finished.
    """
    rankings: dict[int, Ranking] = {}
    failed: dict[int, FailedRanking] = {}
    try:
        for index, outcome in outcomes:
            if isinstance(outcome, FailedRanking):
                failed[index] = outcome
            else:
                rankings[index] = outcome
    except R1RankerError as error:
        log_failed(failed)
        error.rankings = _by_index(rankings, failed, count)
        raise
    if not failed:
        return [rankings[index] for index in sorted(rankings)]
    if len(failed) == 1 and not rankings:
        [alone] = failed.values()
        raise alone.error
    raised = failed_rankings(failed, len(rankings))
    raised.rankings = _by_index(rankings, failed, count)
    raise raised


def _by_index(
    rankings: Mapping[int, Ranking], failed: Mapping[int, FailedRanking], count: int | None
) -> list[Ranking | None]:
    if not rankings:
        return []
    return [rankings.get(index) for index in range(max(*rankings, *failed, -1) + 1 if count is None else count)]


def ranked_or_failed(outcomes: Iterable[tuple[int, Outcome]]) -> Iterator[tuple[int, Ranking]]:
    """Yields the rankings among outcomes as they arrive.

    Args:
        outcomes: pairs of index and outcome.

    Yields:
        Index and ranking.

    Raises:
        FailedRankingsError: at the end, if some have failed.
        R1RankerError: what the outcomes end with.
    """
    finished, failed = 0, dict[int, FailedRanking]()
    try:
        for index, outcome in outcomes:
            if isinstance(outcome, FailedRanking):
                failed[index] = outcome
            else:
                finished += 1
                yield index, outcome
    except R1RankerError:
        log_failed(failed)
        raise
    if failed:
        raise failed_rankings(failed, finished)


def _computed(answer: Answer) -> int:
    """How many tokens of a prompt were computed: all of them where a server does not tell."""
    computed = answer.prompt_tokens_computed
    return answer.usage.prompt_tokens if computed is None else computed
