"""Who is ranked now, who waits, and who is told to come back later."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from r1ranker_ir.serving.refusals import RefusedRequest

_LONGEST_RETRY = 60
_WEIGHT = 0.1  # of the latest request in the mean of seconds


class Admission:
    """Places for requests, and a queue of bounded length before them; first come, first served.

    Args:
        places: how many are ranked at once.
        queue: how many may wait.
    """

    def __init__(self, places: int, queue: int) -> None:
        self._places, self._queue = places, queue
        self._free = asyncio.Semaphore(places)
        self._seconds = 1.0
        self.active = self.waiting = 0

    @asynccontextmanager
    async def place(self, seconds: float) -> AsyncIterator[bool]:
        """Waits for a place, for so many seconds at most; tells whether there is one.

        Raises a RefusedRequest at once if the queue is full.
        """
        if self._free.locked() and self.waiting >= self._queue:
            raise RefusedRequest("the service is busy: try again later", 429, retry_after=self.retry_after())
        if not await self._found(seconds):
            yield False
            return
        self.active += 1
        started = time.monotonic()
        try:
            yield True
        finally:
            self.active -= 1
            self._free.release()
            self._seconds += _WEIGHT * (time.monotonic() - started - self._seconds)

    async def _found(self, seconds: float) -> bool:
        if not self._free.locked():
            # Taken at once, before anybody else looks.
            return await self._free.acquire()
        self.waiting += 1
        try:
            return await asyncio.wait_for(self._free.acquire(), max(0.0, seconds))
        except TimeoutError:
            return False
        finally:
            self.waiting -= 1

    def retry_after(self) -> int:
        """Whole seconds until those who wait now will probably have been served."""
        rounds = (self.waiting + self.active) / self._places
        return min(_LONGEST_RETRY, max(1, math.ceil(rounds * self._seconds)))
