"""Whether a failed request is tried again, and when."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from openai import APIConnectionError

from r1ranker_ir.backends.failures import status_of
from r1ranker_ir.backends.replies import FailedReplyError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_LONGEST_ASKED_FOR = 120.0
_PASSING = (408, 409, 429)
# Beyond it, a power of two would only overflow.
_MOST_DOUBLINGS = 10


def pause_before_retry(error: Exception, headers: Mapping[str, str], attempt: int) -> float | None:
    """Says how long to wait before a request is sent again.

    Args:
        error: what became of it.
        headers: of the reply, as far as there was one.
        attempt: how often it was tried again before.

    Returns:
        Seconds; `None` if it would fail again, or the server asks for more than two minutes.
    """
    asked_for = _asked_for(headers)
    if asked_for is not None and asked_for > _LONGEST_ASKED_FOR:
        return None
    if not _is_passing(error, headers, attempt):
        return None
    if asked_for is not None and asked_for > 0:
        return asked_for
    longest = min(_FIRST_PAUSE * 2.0 ** min(attempt, _MOST_DOUBLINGS), _LONGEST_PAUSE)
    return longest * (1 - 0.25 * random.random())


def _is_passing(error: Exception, headers: Mapping[str, str], attempt: int) -> bool:
    if isinstance(error, FailedReplyError) and error.filtered:
        # A filter may look at what was sampled, but one that looks at the query says the same each time.
        return attempt == 0
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    status = status_of(error)
    if status is None:
        return isinstance(error, APIConnectionError)
    return status in _PASSING or status >= 500


def _asked_for(headers: Mapping[str, str]) -> float | None:
    """The pause in seconds that a server asks for; `None` where it does not, or not in a form that can be read."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
        return None if math.isnan(seconds) else seconds
    try:
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
