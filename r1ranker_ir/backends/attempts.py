"""One request sent until there is a reply, or no reason to try again."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from r1ranker_ir.backends import failures
from r1ranker_ir.backends.failures import RefusedReplyError
from r1ranker_ir.backends.replies import FailedReplyError

_log = logging.getLogger(__name__)

KNOWN_SERVER_WAIT = 90.0
"""Seconds for which a server that is away is waited for, if it has answered before and nothing else was asked for."""
_Read = TypeVar("_Read")


class Attempts:
    """How often and how long a server is asked again, over all requests to it.

    Args:
        max_retries: how often a failure that may pass is tried again.
        longest: seconds that one request may take, however much of a reply comes meanwhile.
        wait: seconds for which a server that can't be reached is waited for, whatever `max_retries` says; `None` for
            `KNOWN_SERVER_WAIT` where it has answered before, and none where it has not.
    """

    def __init__(self, max_retries: int, longest: float, wait: float | None) -> None:
        self._max_retries = max_retries
        self._longest = longest
        self._wait = wait
        self._known = False
        self._away_since: float | None = None

    async def until_replied(
        self,
        stop: threading.Event,
        send: Callable[[], Awaitable[Any]],
        read: Callable[[bytes], _Read],
        *,
        is_final: Callable[[Exception], object] = lambda _: None,
    ) -> _Read | Exception:
        """Sends a request and reads its reply; failures that are `is_final` are not tried again."""
        attempt, since = 0, None
        while True:
            headers: Mapping[str, str] = {}
            try:
                async with asyncio.timeout(self._longest):
                    raw = await send()
                headers = raw.headers
                reply = read(raw.content)
            # Whatever a server sends, and whatever the SDK makes of it, is a failed request.
            except Exception as error:
                failure = self._cause_of(error)
                headers = headers or getattr(getattr(error, "response", None), "headers", {})
            else:
                self._known, self._away_since = True, None
                return reply
            away = failures.is_away(failure)
            if not away:
                self._known, self._away_since = self._known or failures.status_of(failure) is not None, None
                since = None
            pause = failures.pause_before_retry(failure, headers, attempt)
            if pause is None or stop.is_set() or is_final(failure):
                break
            if away:
                now = time.monotonic()
                since, self._away_since = since or now, self._away_since or now
                # From the first failure of any request: those that come later don't begin anew.
                waits = now + pause - min(since, self._away_since) <= self._patience
            if attempt >= self._max_retries and not (away and waits):
                break
            if attempt == self._max_retries:
                _log.warning("the server can't be reached: it is waited for, up to %g seconds", self._patience)
            attempt += 1
            await asyncio.sleep(pause)
        if isinstance(failure, FailedReplyError):
            failure.asked_to_wait = failures.asked_for(headers)
        return failure

    def _cause_of(self, error: Exception) -> Exception:
        if isinstance(error.__cause__, RefusedReplyError):
            return error.__cause__
        if isinstance(error, TimeoutError):
            return RefusedReplyError(
                f"did not finish a reply within {self._longest:g} seconds",
                f"If its replies take that long, raise request_timeout (now {self._longest:g} seconds)",
            )
        return error

    @property
    def _patience(self) -> float:
        return (KNOWN_SERVER_WAIT if self._known else 0.0) if self._wait is None else self._wait
