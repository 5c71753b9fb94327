"""A connection to a server: the SDK's client in an event loop of its own, and what it will not read or follow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

from r1ranker_ir.backends.endpoint import Endpoint
from r1ranker_ir.backends.failures import RefusedReplyError
from r1ranker_ir.backends.slots import Slots
from r1ranker_ir.errors import BackendError
from r1ranker_ir.files.byte_sizes import in_units

MOST_BYTES = 16 * 2**20
"""How long a reply may be unless another limit is given."""
_CONNECT_SECONDS = 10.0
_Read = TypeVar("_Read")
_Origin = tuple[str, str, int | None]


def make_client(endpoint: Endpoint, timeout: float, most_bytes: int) -> AsyncOpenAI:
    """A client that reads up to `most_bytes` of a reply and goes nowhere but to the endpoint; `timeout` in seconds."""
    origin: list[_Origin] = []

    async def stay(request: Any) -> None:
        """Called before every request, those of redirects included."""
        if not origin:
            origin.append(_origin_of(request.url))
        elif _origin_of(request.url) != origin[0]:
            elsewhere = f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"
            raise RefusedReplyError(
                f"redirects to {elsewhere.rpartition('@')[2] if '@' in elsewhere else elsewhere}, another origin, to "
                "which neither key nor passages are sent,",
                "If that is the server that you mean, give its address as base_url",
                of_all=True,
            )

    async def read_bounded(response: Any) -> None:
        """Reads a reply, unpacked, however much a server sends."""
        read = bytearray()
        async with contextlib.aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                read += chunk
                if len(read) > most_bytes:
                    break
        await response.aclose()
        if len(read) > most_bytes:
            raise RefusedReplyError(
                f"sent a reply of more than {in_units(most_bytes)}",
                "If its replies are meant to be that long, raise max_reply_bytes",
            )
        response._content = bytes(read)  # what the client takes for read, whichever HTTP library it uses

    return AsyncOpenAI(
        api_key=endpoint.key,
        base_url=endpoint.base_url,
        default_headers=endpoint.headers,
        timeout=Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        max_retries=0,  # see `attempts`: the SDK's own do not look into replies of status 200
        http_client=DefaultAsyncHttpxClient(event_hooks={"request": [stay], "response": [read_bounded]}),
    )


def _origin_of(url: Any) -> _Origin:
    return url.scheme, url.host, url.port


def open_connection(endpoint: Endpoint, timeout: float, most_bytes: int, concurrency: int) -> Connection:
    """A connection with a client as `make_client` makes it."""
    try:
        return Connection(make_client(endpoint, timeout, most_bytes), concurrency)
    except (OSError, RuntimeError) as error:
        raise BackendError(
            f"no connection to a server can be opened: {error}. Let this process open more files and threads "
            "(ulimit -n, ulimit -u), or use one backend for all rankings"
        ) from error


class Connection:
    """An SDK client and the event loop that it lives in, in a thread of its own.

    The caller may be inside a loop already, so the loop can't be the caller's; and unlike a pool of blocked threads,
    a loop can drop requests that are under way when a batch has failed or is interrupted.
    """

    def __init__(self, client: AsyncOpenAI, concurrency: int) -> None:
        self.pid = os.getpid()
        self.client = client
        self.slots = Slots(concurrency)
        self._closing = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._live, args=(started,), name="r1ranker-openai", daemon=True)
        self._thread.start()
        self._loop = started.result()

    def start(self, work: Coroutine[Any, Any, _Read]) -> Future[_Read]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Drops what is under way and ends the thread."""
        if self.pid != os.getpid() or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._closing.set)
        # The last reference to a backend may be dropped by its own loop, which must not wait for itself.
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def _live(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        async def until_closed() -> None:
            async with self.client:
                started.set_result(asyncio.get_running_loop())
                await self._closing.wait()

        try:
            asyncio.run(until_closed())
        except Exception as error:
            # Whoever waits for the loop must learn that there is none.
            if started.done():
                raise
            started.set_exception(error)
