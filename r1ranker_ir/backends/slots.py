"""Slots for work in one event loop, handed out by turns: the smallest first, equals as they came."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator

from r1ranker_ir.backends.base import Turn


class Slots:
    """So many things may go on at once; the others wait for their turn."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[Turn, int, asyncio.Future[None]]] = []
        self._came = itertools.count()

    @contextlib.asynccontextmanager
    async def taken(self, turn: Turn) -> AsyncIterator[None]:
        if self._free and not self._waiting:
            self._free -= 1
        else:
            await self._wait(turn)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, turn: Turn) -> None:
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (turn, next(self._came), free))
        try:
            await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            free = heapq.heappop(self._waiting)[2]
            if not free.done():
                free.set_result(None)
                return
        self._free += 1
