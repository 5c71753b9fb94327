"""Slots for work in one event loop, handed out by a number: the smallest first, equals as they came."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator


class Slots:
    """So many things may go on at once; the others wait for their turn."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._came = itertools.count()

    @contextlib.asynccontextmanager
    async def taken(self, number: int) -> AsyncIterator[None]:
        """Holds a slot."""
        if self._free and not self._waiting:
            self._free -= 1
        else:
            await self._turn(number)
        try:
            yield
        finally:
            self._pass_on()

    async def _turn(self, number: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (number, next(self._came), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
