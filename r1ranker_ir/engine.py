"""Drives many ranking programs in lockstep: gathers their calls, sends one batch, hands each answer back."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from r1ranker_ir.backends.base import Backend, KeepsStates
from r1ranker_ir.cache_records import key_maker, version_of
from r1ranker_ir.closed_thoughts import count_closed, of_many
from r1ranker_ir.errors import InputError, R1RankerError, RepairRateError
from r1ranker_ir.signs import ASKED, Signs, signs_of
from r1ranker_ir.types import Answer, Call, Program, Ranking, Usage

if TYPE_CHECKING:
    from r1ranker_ir.cache import CompletionsCache

logger = logging.getLogger(__name__)


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
    signs: Signs = field(default_factory=Signs)

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
        min_calls: how many calls a run must have made before it can be stopped.

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
        if calls < self.min_calls or repairs / calls <= self.max_rate:
            return
        raise RepairRateError(
            f"{repairs} of {calls} answers of {model!r} had to be repaired ({repairs / calls:.0%}, more than "
            f"max_repair_rate {self.max_rate:.0%}): the model does not keep to the answer format, and the ranking "
            "would be mostly the first stage's. Look at a step's text in the trace; use a model that follows "
            "instructions, a larger max_thought_tokens, or raise max_repair_rate."
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


class Engine:
    """Runs ranking programs against one backend; may be used from several threads.

    Args:
        backend: answers the calls.
        max_repair_rate: the share of answers that may need repair before a run is stopped.
        min_calls_for_repair_rate: how many calls a run must have made before it can be stopped.
        progress: show a progress bar on a terminal.
        cache: where answers are looked for before the backend is asked, and kept right after each of its batches. It
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
            RepairRateError: if too many answers needed repair.
        """
        return [ranking for _, ranking in sorted(self.stream(programs), key=lambda pair: pair[0])]

    def stream(self, programs: Iterable[Program]) -> Iterator[tuple[int, Ranking]]:
        """Runs programs, as many at once as the backend likes to get calls, and yields each as it finishes.

        Args:
            programs: taken one by one as places become free, so a long list is never held in memory.

        Yields:
            The program's index and its ranking.

        Raises:
            RepairRateError: if too many answers needed repair; what was yielded before stays valid.
            R1RankerError: what taking a program raises, after the programs under way have been finished.
        """
        total = len(programs) if isinstance(programs, Sized) else None
        bar: tqdm[Any] = tqdm(total=total, unit="query", disable=None if self.progress else True)
        counts = _RunCounts()
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
                    if isinstance(started, Ranking):
                        rankings.end(number)
                        bar.update()
                        yield following[0], started
                    else:
                        active.append(started)
                if not active:
                    if failure is not None:
                        raise failure
                    return
                answers = self._answer([entry.call for entry in active])
                still_active = []
                for entry, answer in zip(active, answers, strict=True):
                    counts.calls += 1
                    advanced = self._advance(entry.index, entry.program, answer, counts, entry.ranking, entry.call)
                    if isinstance(advanced, Ranking):
                        rankings.end(entry.ranking)
                        bar.update()
                        yield entry.index, advanced
                    else:
                        still_active.append(advanced)
                active = still_active
                bar.set_postfix(calls=counts.calls, repairs=counts.repairs)
                self._repair_limit.check(counts.calls, counts.repairs, self.backend.name)

    def _advance(
        self,
        index: int,
        program: Program,
        answer: Answer | None,
        counts: _RunCounts,
        number: int,
        answered: Call | None = None,
    ) -> _Active | Ranking:
        """Hands an answer to a program, or starts it; returns what it waits for, or its ranking."""
        before = answered.repairs_before if answered is not None else 0
        started = time.perf_counter()
        try:
            call = next(program) if answer is None else program.send(answer)
        except StopIteration as stop:
            ranking: Ranking = stop.value
            counts.repairs += ranking.repairs - before
            seconds, counts.seconds = counts.seconds + time.perf_counter() - started, 0.0
            question = None if answered is None else answered.question
            signs = signs_of(ranking, None if question is None else ASKED.get(question.section))
            self._count(queries=1, repairs=ranking.repairs, seconds=seconds, signs=signs)
            return ranking
        # Counted with its run's next batch or ranking: to add up a summary for each call would take longer than this.
        counts.seconds += time.perf_counter() - started
        counts.repairs += call.repairs_before - before
        return _Active(index, program, replace(call, ranking=number), number)

    def _answer(self, calls: list[Call]) -> list[Answer]:
        answers, new, seconds = self._ask(calls) if self._cache is None else self._ask_once(calls, self._cache)
        self._count(
            usage=sum((answer.usage for answer in answers), Usage()),
            thoughts_closed=sum(answer.thought_closed for answer in answers),
            cut_passages=sum(call.cut_passages for call in calls),
            seconds=seconds,
            cached_calls=len(calls) - len(new),
            cut_queries=sum(call.cut_query for call in calls),
            prompt_tokens_computed=sum(map(_computed, new)),
            cache_memory_peak=self.backend.cache_memory_peak if isinstance(self.backend, KeepsStates) else 0,
            **{f"closed_at_{where}": count for where, count in count_closed(answers).items()},
        )
        return answers

    def _ask(self, calls: list[Call]) -> tuple[list[Answer], list[Answer], float]:
        """Has the backend answer; gives the answers, those of them that calls were made for, and seconds."""
        # One batch at a time: a model in memory is not safe to use from two threads at once.
        with self._backend_lock:
            # Only from here on: while several threads wait for their turn, the same second would count for each.
            started = time.perf_counter()
            answers = self.backend.answer(calls)
            return answers, answers, time.perf_counter() - started

    def _ask_once(self, calls: list[Call], kept: _KeptAnswers) -> tuple[list[Answer], list[Answer], float]:
        """As `_ask`, but only for what is not in the cache, and for equal calls once."""
        started = time.perf_counter()
        keys = [kept.key_of(call) for call in calls]
        found = kept.cache.look_up(keys)
        missing = {key: call for key, call in zip(keys, calls, strict=True) if key not in found}
        seconds, made = time.perf_counter() - started, list[Answer]()
        if missing:
            with self._backend_lock:
                started = time.perf_counter()
                # While this thread waited, another one may have had the same calls answered.
                found |= kept.cache.look_up(list(missing))
                asked = {key: call for key, call in missing.items() if key not in found}
                if asked:
                    new = dict(zip(asked, self.backend.answer(list(asked.values())), strict=True))
                    found |= new | kept.cache.store(new, model=self.backend.name, version=kept.version)
                    made = list(new.values())
                seconds += time.perf_counter() - started
        return [found[key] for key in keys], made, seconds

    def _count(self, *, usage: Usage | None = None, **counted: Any) -> None:
        spent = RunSummary(usage=usage or Usage(), **counted)
        with self._summary_lock:
            self._summary += spent


def _computed(answer: Answer) -> int:
    """How many tokens of a prompt were computed: all of them where a server does not tell."""
    computed = answer.prompt_tokens_computed
    return answer.usage.prompt_tokens if computed is None else computed
