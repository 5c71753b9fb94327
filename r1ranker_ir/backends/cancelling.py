"""Work on a batch that stops once nobody waits for any of its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from r1ranker_ir.errors import CancelledRankingError

_WANTED: ContextVar[Callable[[], bool] | None] = ContextVar("r1ranker_wanted", default=None)


@contextlib.contextmanager
def wanted_by(wanted: Callable[[], bool]) -> Iterator[None]:
    """Says for what is done meanwhile whether somebody still waits for it."""
    token = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(token)


def check_wanted() -> None:
    """Raises `CancelledRankingError` if nobody waits any longer for what is done here."""
    wanted = _WANTED.get()
    if wanted is not None and not wanted():
        raise CancelledRankingError("the ranking was cancelled: it makes no further calls")
