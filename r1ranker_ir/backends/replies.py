"""What stands in a chat server's reply, whatever the server makes of the form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.backends.channels import in_one_form
from r1ranker_ir.backends.odds import WrittenToken, read_tokens

# Names that servers give the end of an answer which is as long as the model wanted it.
_COMPLETE_ENDS = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call")
_LIMIT_ENDS = ("length", "max_tokens")
_FILTER_ENDS = "content_filter safety prohibited_content recitation blocklist spii error_toxic refusal".split()
_BROKEN_ENDS = ("error", "abort", "aborted", "cancelled", "canceled", "timeout", "insufficient_system_resource")
_REASONING_FIELDS = "reasoning_content reasoning thinking reasoning_details reasoning_text thoughts".split()
_REASONING_PARTS = (
    "thinking reasoning reasoning.text reasoning.summary reasoning_text reasoning_content summary_text thought".split()
)
_TEXT_FIELDS = ("text", "thinking", "reasoning", "summary", "content")
# Statuses of errors that are named in words only; the first that fits counts.
_STATUS_BY_WORDS = {
    "rate_limit|rate limit|too many requests|quota": 429,
    "overloaded|unavailable": 503,
    "timeout|timed out": 504,
    "authentication|invalid_api_key|unauthorized": 401,
    "permission": 403,
    "not_found": 404,
    "content_filter|content_policy|moderation|context_length|invalid_request|badrequest|bad request": 400,
    "": 502,
}
_BAD_GATEWAY, _BAD_REQUEST, _SERVICE_UNAVAILABLE = 502, 400, 503
# A larger number is not believed: it would only spoil the sums.
_MOST_TOKENS = 10**9
_DEEPEST_PARTS = 4


class UnreadableReplyError(ValueError):
    """A reply of status 200 that holds neither what was asked for nor an error; its message is the reply."""


class BrokenReplyError(UnreadableReplyError):
    """A reply of status 200 that ends too early, as where a connection without a length is cut."""


class FailedReplyError(Exception):
    """A reply of status 200 that says that the request has failed; `status` is the one that it should have had.

    `asked_to_wait` are the seconds that it asks for before the next request.
    """

    def __init__(self, words: str, status: int, *, filtered: bool = False) -> None:
        super().__init__(words)
        self.status = status
        self.filtered = filtered
        self.asked_to_wait = 0.0


@dataclass(frozen=True)
class Reply:
    """What counts of a chat completion, as far as the server says it.

    `reasoning` is a thought that came apart from the text; `reused_tokens` of the prompt were in a prefix cache; of
    `tokens` the server gives the log-probabilities.
    """

    content: str
    reasoning: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int | None = None
    tokens: tuple[WrittenToken, ...] = ()

    @property
    def ran_out(self) -> bool:
        """Whether the text ends at a limit of tokens."""
        return self.finish_reason in _LIMIT_ENDS

    def is_final(self, limit: int) -> bool:
        """Whether another try would bring the same: not if the text is empty, ends for an unknown reason, or ran out
        before the `limit` of the request."""
        if not (self.content.strip() or self.reasoning.strip()):
            return False
        if self.ran_out:
            return self.completion_tokens is None or self.completion_tokens >= limit
        return not self.finish_reason or self.finish_reason in _COMPLETE_ENDS


def read_choice(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the first choice of a reply of status 200, and the whole reply, or raises what it says of a failure."""
    raw = body.decode("utf-8-sig", "replace")
    try:
        content = json.loads(raw)
    # Numbers of thousands of digits are a ValueError; lists in lists in lists are a RecursionError.
    except (ValueError, RecursionError):
        text = raw.strip()
        cut = not text or (text.startswith("{") and not text.endswith("}"))
        raise (BrokenReplyError if cut else UnreadableReplyError)(raw) from None
    choices = _object(content).get("choices")
    if not choices and (_object(content).get("error") or _object(content).get("object") == "error"):
        raise _failure(content.get("error") or content)
    if choices == []:
        raise FailedReplyError("the reply has no choices", _BAD_GATEWAY)
    # A web framework in place of a chat server says {"detail": …}, and another kind of API something else.
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise UnreadableReplyError(raw)
    if error := choices[0].get("error") or content.get("error"):
        raise _failure(error)
    return choices[0], content


def read_reply(body: bytes) -> Reply:
    """Reads the body of a chat completion of status 200, or raises what it says of a failure."""
    choice, content = read_choice(body)
    finish = choice.get("finish_reason")
    finish_reason = finish.lower() if isinstance(finish, str) else ""
    if finish_reason in _FILTER_ENDS:
        words = f"a content filter of the server stopped the answer (finish_reason {finish_reason!r})"
        raise FailedReplyError(words, _BAD_REQUEST, filtered=True)
    if finish_reason in _BROKEN_ENDS:
        status = _BAD_GATEWAY if finish_reason == "error" else _SERVICE_UNAVAILABLE
        raise FailedReplyError(f"the server did not finish its answer (finish_reason {finish_reason!r})", status)
    message = _object(choice.get("message"))
    parts = _parts(message.get("content")) if isinstance(choice.get("message"), dict) else None
    if parts is None:
        raise UnreadableReplyError(body.decode("utf-8", "replace"))
    text = "".join(_flat(part) for part in parts if not _is_thought(part))
    thoughts = ["".join(filter(None, map(_flat, filter(_is_thought, parts))))]
    thoughts += [_flat(message.get(name)) for name in _REASONING_FIELDS]
    usage = _object(content.get("usage"))
    return Reply(
        in_one_form(_sendable(text)),
        in_one_form(_sendable(next((each for each in thoughts if each.strip()), ""))),
        finish_reason,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        reused_tokens(content),
        read_tokens(choice.get("logprobs")),
    )


def reused_tokens(content: dict[str, Any]) -> int | None:
    """How many tokens of the prompt were in a prefix cache, as a whole reply says it."""
    return _count(_object(_object(content.get("usage")).get("prompt_tokens_details")).get("cached_tokens"))


def _parts(content: Any) -> list[Any] | None:
    """The parts of a message, texts and objects; `None` where the form is unknown."""
    parts = content if isinstance(content, list) else [] if content is None else [content]
    return parts if all(isinstance(part, str | dict) for part in parts) else None


def _is_thought(part: Any) -> bool:
    kind = _object(part)
    return kind.get("type") in _REASONING_PARTS or ("text" not in kind and "thinking" in kind)


def _flat(value: Any, depth: int = 0) -> str:
    """The text of a field that is text, a part, or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth < _DEEPEST_PARTS:
        return "".join(_flat(each, depth + 1) for each in value)
    if isinstance(value, dict) and depth < _DEEPEST_PARTS:
        return next((text for name in _TEXT_FIELDS if (text := _flat(value.get(name), depth + 1))), "")
    return ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sendable(text: str) -> str:
    """Half a surrogate pair, which JSON can name and UTF-8 can't hold, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _count(value: Any) -> int | None:
    """A number of tokens; `None` for what can't be one."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _failure(error: Any) -> FailedReplyError:
    """The failure that an error object, or its text, speaks of."""
    words, fields = _words(error), _object(error)
    named = [fields.get(name) for name in ("code", "status", "status_code", "http_code")]
    named.append(_object(fields.get("metadata")).get("code"))
    for value in named:
        if isinstance(value, int | str) and re.fullmatch("[45][0-9][0-9]", str(value)[:4]):
            return FailedReplyError(words, int(value))
    said = " ".join(str(fields[name]) for name in ("code", "type", "status") if isinstance(fields.get(name), str))
    described = f"{said} {words}".lower()
    found = next(status for pattern, status in _STATUS_BY_WORDS.items() if re.search(pattern, described))
    return FailedReplyError(words, found)


def _words(error: Any) -> str:
    """What an error object says; the object itself where it has no message."""
    fields = _object(error)
    said = next((fields[name] for name in ("message", "detail", "error") if fields.get(name)), error)
    try:
        return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    except RecursionError:
        return "an error in too many layers"
