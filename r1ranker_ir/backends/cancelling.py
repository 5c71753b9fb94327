"""Work in another thread that makes no further calls once nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from r1ranker_ir.errors import CancelledRankingError

_Result = TypeVar("_Result")
_STOP: ContextVar[threading.Event | None] = ContextVar("r1ranker_stop", default=None)


async def in_thread(work: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
    """Runs a function in another thread, as `asyncio.to_thread` does; once cancelled, it makes no more calls."""
    stop = threading.Event()
    token = _STOP.set(stop)
    try:
        # A thread that is not begun yet when this is cancelled never begins.
        return await asyncio.to_thread(work, *args, **kwargs)
    except asyncio.CancelledError:
        stop.set()
        raise
    finally:
        _STOP.reset(token)


def check_wanted() -> None:
    """Raises `CancelledRankingError` if nobody waits any longer for what this thread does."""
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise CancelledRankingError("the ranking was cancelled: it makes no further calls")


def may_be_cancelled() -> bool:
    """Whether `check_wanted` may ever raise here, so that it has to be called now and then."""
    return _STOP.get() is not None
