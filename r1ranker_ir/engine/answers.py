"""Answers to calls: from the cache, where there is one, or made by the backend and kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from r1ranker_ir.backends.base import Backend, TakesCalls, Turn
from r1ranker_ir.backends.cancelling import check_wanted
from r1ranker_ir.cache.completions import CompletionsCache
from r1ranker_ir.cache.records import key_maker, version_of
from r1ranker_ir.engine.gathering import Keyed, Told
from r1ranker_ir.engine.summary import Tally
from r1ranker_ir.types import Answer, Call

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptAnswers:
    """A cache as one backend uses it."""

    cache: CompletionsCache
    key_of: Callable[[Call], bytes]
    model: str
    version: str

    def keep(self, answers: Mapping[bytes, Answer]) -> Mapping[bytes, Answer]:
        """Stores answers that will not change, and gives the first that was ever stored of each."""
        final = {key: answer for key, answer in answers.items() if not answer.provisional}
        return self.cache.store(final, model=self.model, version=self.version) if final else {}


def kept_answers(cache: CompletionsCache | None, backend: Backend) -> KeptAnswers | None:
    """The cache for a backend; `None` where there is none, or where answers may differ the next time."""
    if cache is None:
        return None
    identity = backend.identity
    if reason := identity.get("not_cacheable"):
        logger.warning("the answers of %r are not cached: %s", backend.name, reason)
        return None
    return KeptAnswers(cache, key_maker(identity), backend.name, version_of(identity))


class Answers:
    """Answers calls with one backend, and counts the seconds in which it worked."""

    def __init__(self, backend: Backend, cache: CompletionsCache | None, tally: Tally) -> None:
        self._backend = backend
        self._kept = kept_answers(cache, backend)
        self._tally = tally
        self._lock = threading.Lock()
        self._under_way = 0
        self._began = 0.0

    def keyed(self, calls: Sequence[Call]) -> list[Keyed]:
        """Calls with their keys, which take as long to compute as a cache takes to answer: once for each."""
        return [(call, b"" if self._kept is None else self._kept.key_of(call)) for call in calls]

    def known(self, asked: Sequence[Keyed]) -> list[Told | None]:
        if self._kept is None:
            return [None] * len(asked)
        started = time.perf_counter()
        found = self._kept.cache.look_up(list(dict.fromkeys(key for _, key in asked)))
        self._tally.add({"seconds": time.perf_counter() - started})
        return [(found[key], False) if key in found else None for _, key in asked]

    def made(self, asked: Sequence[Keyed]) -> list[Told]:
        """Has a batch answered: equal calls once, and nothing that has become known meanwhile."""
        check_wanted()
        started = time.perf_counter()
        try:
            if self._kept is None:
                return [(answer, True) for answer in self._batch([call for call, _ in asked])]
            return self._batch_once(self._kept, asked)
        finally:
            self._tally.add({"seconds": time.perf_counter() - started})

    def _batch(self, calls: Sequence[Call]) -> list[Answer]:
        answers = self._backend.answer(calls) if calls else []
        if len(answers) != len(calls):
            raise ValueError(f"backend {self._backend.name!r} gave {len(answers)} answers to {len(calls)} calls")
        return answers

    def _batch_once(self, kept: KeptAnswers, asked: Sequence[Keyed]) -> list[Told]:
        calls = {key: call for call, key in reversed(asked)}
        known = kept.cache.look_up(list(calls))
        new = [key for key in dict.fromkeys(key for _, key in asked) if key not in known]
        made = dict(zip(new, self._batch([calls[key] for key in new]), strict=True))
        # Together, so that a run that goes on has the same left to put together.
        found = {**known, **made, **kept.keep(made)}
        told = list[Told]()
        for _, key in asked:
            told.append((found[key], key in made))
            made.pop(key, None)
        return told

    def begin(self, backend: TakesCalls, call: Call, turn: Turn, stop: threading.Event) -> Future[Answer]:
        """Has one call answered, see `TakesCalls.submit`."""
        with self._lock:
            if not self._under_way:
                self._began = time.perf_counter()
            self._under_way += 1
        try:
            future = backend.submit(call, turn, stop)
        except BaseException:
            self._ended(None)
            raise
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: Future[Answer] | None) -> None:
        with self._lock:
            self._under_way -= 1
            spent = 0.0 if self._under_way else time.perf_counter() - self._began
        self._tally.add({"seconds": spent})

    def keep(self, key: bytes, answer: Answer) -> Answer:
        """Keeps an answer that was made, at once, so that nothing is lost that was paid for."""
        return answer if self._kept is None else self._kept.keep({key: answer}).get(key, answer)
