"""What a failed request to an OpenAI-compatible server says to the user."""

from __future__ import annotations

import re

from openai import APIConnectionError, APIStatusError, APITimeoutError

from r1ranker_ir.backends.replies import FailedReplyError

_DETAIL_CHARACTERS = 400
# Whoever asks, and whatever for: no credentials, no money, no such address or model, too many requests.
_STATUSES_OF_ALL = (401, 402, 404, 405, 407, 429)
_FORBIDDEN = 403
_ABOUT_CONTENT = re.compile(r"moderat|flagged|content|policy|policies|safety|filter|harm", re.IGNORECASE)
_NO_CONNECTION = ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol")


def status_of(error: object) -> int | None:
    """Returns the HTTP status that a server refused with, or named in a reply; `None` for anything else."""
    if isinstance(error, APIStatusError):
        return error.status_code
    return error.status if isinstance(error, FailedReplyError) else None


def is_refused(error: Exception) -> bool:
    """Tells whether the server understood the request and refused it, rather than failed at it."""
    status = status_of(error)
    return status is not None and 400 <= status < 500


def concerns_all(error: Exception) -> bool:
    """Tells whether the next request would meet the same failure, whatever it asks."""
    status = status_of(error)
    if status == _FORBIDDEN:
        # Some gateways refuse a flagged text with the status of a key that lacks permission.
        return not _ABOUT_CONTENT.search(words_of(error))
    if status is not None:
        return status in _STATUSES_OF_ALL
    return isinstance(error, APIConnectionError) and type(error.__cause__).__name__ in _NO_CONNECTION


def words_of(error: Exception) -> str:
    """Returns what the server said about a failure, or what the connection did; unscrubbed, of any length."""
    if isinstance(error, APIStatusError):
        body = error.body
        if isinstance(body, dict):
            # OpenAI and vLLM say message, FastAPI servers detail, Ollama error.
            body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
        return str(body or "")
    if isinstance(error, APITimeoutError):
        return ""
    if isinstance(error, APIConnectionError):
        return str(error.__cause__ or "")
    return str(error)


def refuses(reply: object, field: str) -> bool:
    """Tells whether the server took offence at a field of the request, or at least named it when it refused."""
    return isinstance(reply, Exception) and status_of(reply) in (400, 422) and field in words_of(reply)


def shorten(text: str) -> str:
    """Brings a text to one line of at most 400 characters, without a full stop at its end."""
    line = " ".join(text.split()).rstrip(".").encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= _DETAIL_CHARACTERS else f"{line[:_DETAIL_CHARACTERS]}…"


def what_failed(error: Exception) -> str:
    """Says what the server did, to follow the words "the server at …"."""
    if isinstance(error, FailedReplyError):
        return f"sent no chat completion, but a failure (as of status {error.status}),"
    status = status_of(error)
    if status is not None:
        return f"answered with status {status}"
    if isinstance(error, APITimeoutError):
        return "did not answer in time"
    if isinstance(error, APIConnectionError):
        return "could not be reached, or broke off,"
    return "sent something that is no chat completion"


def what_to_do(error: Exception, *, attempts: int, concurrency: int, timeout: float) -> str:
    """Says how the user may get past a failure.

    Args:
        error: the SDK's error, after its retries.
        attempts: how often a request is sent at most.
        concurrency: requests in flight at once.
        timeout: seconds that a server may stay silent.

    Returns:
        One sentence without its full stop.
    """
    status = status_of(error)
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
    return _what_to_change(words_of(error))


def _what_to_change(words: str) -> str:
    """For a request that the server understood and refused."""
    if re.search(r"content.?(filter|policy|management)|moderation|flagged", words, re.IGNORECASE):
        return "The server's filter refuses this query or its passages: ask another server, or leave the query out"
    for option in ("temperature", "seed"):
        if option in words:
            return (
                f"If it refuses the field {option}, pass {option}=None (--{option} none); answers may then differ from "
                "run to run"
            )
    if re.search(r"system (role|message|prompt)", words, re.IGNORECASE):
        return "If the model's chat template takes no system message, give a prompt template whose system text is empty"
    if re.search(r"context|too long|length|tokens", words):
        return "If the prompt is too long, give context_length, or lower max_passage_tokens or window_size"
    return "Compare the options with what the server's documentation allows"
