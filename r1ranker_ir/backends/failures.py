"""What a failed request to an OpenAI-compatible server says to the user, and whether and when it is tried again."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from openai import APIConnectionError, APIStatusError, APITimeoutError

from r1ranker_ir.backends.replies import BrokenReplyError, FailedReplyError

_DETAIL_CHARACTERS = 400
# What a proxy or a server that starts answers, in place of the model's server.
_AWAY_STATUSES = (502, 503, 504)
_AWAY = ("ConnectError", "ConnectTimeout")
# Whoever asks, and whatever for: no credentials, no money, no such address or model, too many requests.
_STATUSES_OF_ALL = (401, 402, 404, 405, 407, 429)
_FORBIDDEN = 403
_ABOUT_CONTENT = re.compile(r"moderat|flagged|content|policy|policies|safety|filter|harm", re.IGNORECASE)
_NO_CONNECTION = ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol")
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED_FOR = 0.5, 8.0, 120.0
_PASSING = (408, 409, 429)
# Beyond it, a power of two would only overflow.
_MOST_DOUBLINGS = 10
# As pydantic's errors look once a server has written them out.
_AS_TEXT = re.compile(r"'loc': \(([^()]*)\), 'msg': ('[^']*'|\"[^\"]*\")")
_LEFT_OUT = "If it refuses the field {0}, pass {0}=None (--{0} none); answers may then differ from run to run"
_CHANGES = {
    r"content.?(filter|policy|management)|moderation|flagged": (
        "The server's filter refuses this query or its passages: ask another server, or leave the query out"
    ),
    "temperature": _LEFT_OUT.format("temperature"),
    "seed": _LEFT_OUT.format("seed"),
    r"system (role|message|prompt)": (
        "If the model's chat template takes no system message, give a prompt template whose system text is empty"
    ),
    r"context|too long|length|tokens": (
        "If the prompt is too long, give context_length, or lower max_passage_tokens or window_size"
    ),
    "": "Compare the options with what the server's documentation allows",
}
"""What to change about a request that the server understood and refused, by its words; the first that fits counts."""


class RefusedReplyError(Exception):
    """A reply that is not taken; its message, behind "the server at …", says why, and `advice` what to do.

    `of_all` says that the next request would meet the same.
    """

    def __init__(self, words: str, advice: str, *, of_all: bool = False) -> None:
        super().__init__(words)
        self.advice = advice
        self.of_all = of_all


def status_of(error: object) -> int | None:
    """The HTTP status that a server refused with, or named in a reply."""
    if isinstance(error, APIStatusError):
        return error.status_code
    return error.status if isinstance(error, FailedReplyError) else None


def is_refused(error: Exception) -> bool:
    """Whether the server understood the request and refused it, rather than failed at it."""
    status = status_of(error)
    return status is not None and 400 <= status < 500


def concerns_all(error: Exception) -> bool:
    """Whether the next request would meet the same failure, whatever it asks."""
    status = status_of(error)
    if isinstance(error, RefusedReplyError):
        return error.of_all
    if asked_to_wait(error) > _LONGEST_ASKED_FOR:
        return True
    if status == _FORBIDDEN:
        # Some gateways refuse a flagged text with the status of a key that lacks permission.
        return not _ABOUT_CONTENT.search(words_of(error))
    if status is not None:
        return status in _STATUSES_OF_ALL
    return isinstance(error, APIConnectionError) and type(error.__cause__).__name__ in _NO_CONNECTION


def words_of(error: Exception) -> str:
    """What the server said about a failure, or what the connection did; unscrubbed, of any length."""
    if isinstance(error, APIStatusError):
        body = error.body
        if isinstance(body, dict):
            # OpenAI and vLLM say message, FastAPI servers detail, Ollama error.
            param = body.get("param")
            body = _complaints(next((body[name] for name in ("message", "detail", "error") if body.get(name)), body))
            if isinstance(param, str) and param not in str(body):
                return f"{body} ({param})"
        return str(_complaints(body) or "")
    if isinstance(error, APITimeoutError | RefusedReplyError):
        return ""
    return str((error.__cause__ or "") if isinstance(error, APIConnectionError) else error)


def _complaints(said: Any) -> Any:
    """What a validator says, without the input that it repeats: all fields of a request and its passages."""
    if isinstance(said, dict) and isinstance(said.get("detail"), list):
        said = said["detail"]
    if isinstance(said, str):
        found = [
            (re.sub(r"[^\w, ]", "", place).replace(", ", "."), words[1:-1]) for place, words in _AS_TEXT.findall(said)
        ]
    elif isinstance(said, list) and said and all(isinstance(each, dict) and each.get("msg") for each in said):
        places = [each.get("loc") for each in said]
        named = [".".join(map(str, place)) if isinstance(place, list) else "" for place in places]
        found = [(place, each["msg"]) for place, each in zip(named, said, strict=True)]
    else:
        return said
    return "; ".join(f"{place}: {words}" for place, words in found) or said


def is_away(error: Exception) -> bool:
    """Whether no server answers at the address, or a proxy says so."""
    if isinstance(error, APIStatusError):
        return error.status_code in _AWAY_STATUSES
    return isinstance(error, APIConnectionError) and type(error.__cause__).__name__ in _AWAY


def asked_to_wait(error: Exception) -> float:
    """Seconds that a failing server asked to wait; 0 where it did not."""
    if isinstance(error, APIStatusError):
        return asked_for(error.response.headers)
    return error.asked_to_wait if isinstance(error, FailedReplyError) else 0.0


def shorten(text: str) -> str:
    """Brings a text to one line of at most 400 characters, without a full stop at its end."""
    line = " ".join(text.split()).rstrip(".").encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= _DETAIL_CHARACTERS else f"{line[:_DETAIL_CHARACTERS]}…"


def what_failed(error: Exception) -> str:
    """Says what the server did, to follow the words "the server at …"."""
    if isinstance(error, RefusedReplyError):
        return str(error)
    if isinstance(error, FailedReplyError):
        return f"sent no chat completion, but a failure (as of status {error.status}),"
    if (status := status_of(error)) is not None:
        return f"answered with status {status}"
    if isinstance(error, APITimeoutError):
        return "did not answer in time"
    if isinstance(error, APIConnectionError):
        return "could not be reached, or broke off,"
    return "sent something that is not a chat completion"


def what_to_do(error: Exception, attempts: int, concurrency: int, timeout: float) -> str:
    """How the user may get past a failure, in a sentence without its full stop; `timeout` in seconds."""
    status = status_of(error)
    if isinstance(error, RefusedReplyError):
        return error.advice
    if (asked := asked_to_wait(error)) > _LONGEST_ASKED_FOR:
        return (
            f"It asks to wait {asked:.0f} seconds before the next request, and at most {_LONGEST_ASKED_FOR:g} are "
            "waited for: give the command again after that time, or use another server or key"
        )
    again = f"It was tried up to {attempts} times: raise max_retries, or lower concurrency (now {concurrency})"
    if isinstance(error, APITimeoutError):
        return f"{again}, or raise timeout (now {timeout:g} seconds)"
    if isinstance(error, APIConnectionError):
        return "Check that the server runs and that base_url names its host and port"
    if status is None:
        return "Check that base_url ends at the root of an OpenAI-compatible API (often /v1)"
    if status in (401, 403):
        return "Check the key in the environment variable OPENAI_API_KEY, and what it gives access to"
    if status in (404, 405):
        return "Check that base_url ends at the API's root (often /v1), and that the server has a model of this name"
    if status == 429:
        return f"{again}; where a quota is used up, waiting does not help"
    if status >= 500:
        return f"{again}; the server's own log may say more"
    words = words_of(error)
    return next(advice for pattern, advice in _CHANGES.items() if re.search(pattern, words, re.IGNORECASE))


def pause_before_retry(error: Exception, headers: Mapping[str, str], attempt: int) -> float | None:
    """Seconds to wait before a request is sent again; `None` if it would fail again, or the wait would be too long."""
    asked = asked_for(headers)
    if asked > _LONGEST_ASKED_FOR or not _is_passing(error, headers, attempt):
        return None
    longest = min(_FIRST_PAUSE * 2.0 ** min(attempt, _MOST_DOUBLINGS), _LONGEST_PAUSE)
    return asked if asked > 0 else longest * (1 - 0.25 * random.random())


def _is_passing(error: Exception, headers: Mapping[str, str], attempt: int) -> bool:
    if isinstance(error, FailedReplyError) and error.filtered:
        # A filter may look at what was sampled, but one that looks at the query says the same each time.
        return attempt == 0
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    status = status_of(error)
    if status is None:
        return isinstance(error, APIConnectionError | BrokenReplyError)
    return status in _PASSING or status >= 500


def asked_for(headers: Mapping[str, str]) -> float:
    """The pause in seconds that a server asks for; 0 where it does not, or not in a form that can be read."""
    told = headers.get("retry-after", "")
    for number, seconds_each in ((headers.get("retry-after-ms", ""), 0.001), (told, 1.0)):
        try:
            seconds = float(number) * seconds_each
        except ValueError:
            continue
        return 0.0 if math.isnan(seconds) else seconds
    try:
        return parsedate_to_datetime(told).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
