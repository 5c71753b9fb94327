"""Calls of several runs, answered together: whoever leads takes along what the others have asked meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from r1ranker_ir.backends.cancelling import wanted_by
from r1ranker_ir.types import Answer, Call

Keyed = tuple[Call, bytes]
"""A call, and what it has in common with equal ones; empty where no cache says which are equal."""
Told = tuple[Answer, bool]
"""An answer, and whether it was made for this call: else it was known, or came with an equal call."""

# How long a leader waits for runs that are about to ask: much less than a batch takes.
_SECONDS_TO_GATHER = 0.005


@dataclass(eq=False)
class _Asked:
    """What a run asks at once, and the number of its oldest ranking."""

    calls: Sequence[Keyed]
    number: int
    told: Future[list[Told]] = field(default_factory=Future)
    dropped: bool = False


class SharedBatches:
    """Has calls of any number of threads and tasks answered, one batch at a time, by a model in memory.

    Each run asks again only once it is answered, so a leader knows how many runs there are to wait for. Those whose
    rankings began first go first.

    Args:
        compute: answers a batch.
        size: how many calls are answered together.
    """

    def __init__(self, compute: Callable[[Sequence[Keyed]], list[Told]], size: int) -> None:
        self._compute = compute
        self._size = size
        self._changed = threading.Condition()
        self._waiting: list[_Asked] = []
        self._led = self._works = False
        self._runs = Counter[object]()

    @contextlib.contextmanager
    def run(self, asker: object = None) -> Iterator[None]:
        """Counts a run, which asks now and then, for as long as it lasts; a thread's runs within runs count once."""
        key = threading.get_ident() if asker is None else asker
        with self._changed:
            self._runs[key] += 1
        try:
            yield
        finally:
            with self._changed:
                self._runs[key] -= 1
                self._runs += Counter()
                self._changed.notify_all()

    def answer(self, calls: Sequence[Keyed], number: int) -> list[Told]:
        """Waits for answers, and makes them as long as nobody else does."""
        asked = _Asked(calls, number)
        with self._changed:
            self._waiting.append(asked)
            self._changed.notify_all()
        try:
            while not asked.told.done():
                self._lead_or_wait(until=asked)
        except BaseException:
            # Such as a KeyboardInterrupt: nobody waits for it any longer.
            asked.dropped = True
            raise
        return asked.told.result()

    async def answer_async(self, calls: Sequence[Keyed], number: int) -> list[Told]:
        """Waits for answers without a thread; one thread makes them for all tasks."""
        asked = _Asked(calls, number)
        with self._changed:
            self._waiting.append(asked)
            self._changed.notify_all()
            if not self._works:
                self._works = True
                threading.Thread(target=self._work, name="r1ranker-batches", daemon=True).start()
        try:
            return await asyncio.wrap_future(asked.told)
        except asyncio.CancelledError:
            asked.dropped = True
            raise

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._works = False
                    return
            self._lead_or_wait()

    def _lead_or_wait(self, until: _Asked | None = None) -> None:
        with self._changed:
            if self._led:
                self._changed.wait_for(lambda: not self._led or (until is not None and until.told.done()))
                return
            self._led = True
            self._changed.wait_for(lambda: len(self._waiting) >= min(len(self._runs), self._size), _SECONDS_TO_GATHER)
            batch = self._taken()
        try:
            self._tell(batch)
        finally:
            with self._changed:
                self._led = False
                self._changed.notify_all()

    def _taken(self) -> list[_Asked]:
        """Takes what fits into a batch out of those that wait."""
        taken, count = list[_Asked](), 0
        for asked in sorted(self._waiting, key=lambda each: each.number):
            if asked.dropped:
                self._waiting.remove(asked)
            elif not taken or count + len(asked.calls) <= self._size:
                self._waiting.remove(asked)
                taken.append(asked)
                count += len(asked.calls)
        return taken

    def _tell(self, batch: Sequence[_Asked]) -> None:
        calls = [call for asked in batch for call in asked.calls]
        try:
            with wanted_by(lambda: not all(asked.dropped for asked in batch)):
                told = iter(self._compute(calls) if calls else ())
        except Exception as error:
            if len(batch) > 1:
                # Not everybody's error: whoever provoked it is found by asking for each alone.
                for asked in batch:
                    self._tell([asked])
            elif batch:
                _settle(batch[0], error)
            return
        except BaseException:
            # A KeyboardInterrupt is the leader's own: another one takes the others along.
            with self._changed:
                self._waiting += batch
            raise
        for asked in batch:
            _settle(asked, [next(told) for _ in asked.calls])


def _settle(asked: _Asked, outcome: list[Told] | Exception) -> None:
    # A task that was cancelled has cancelled its future.
    if asked.told.set_running_or_notify_cancel():
        if isinstance(outcome, Exception):
            asked.told.set_exception(outcome)
        else:
            asked.told.set_result(outcome)
