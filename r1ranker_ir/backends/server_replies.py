"""What stands in a reply of the completions endpoint: text, tokens, how it ended, and log-probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from r1ranker_ir.backends.replies import Reply, UnreadableReplyError, read_choice, read_reply

Token = int | str
"""A token by its number, or by its text where a server tells no more."""
_NUMBERED = "token_id:"
# What servers call the text at which they stopped.
_STOP_FIELDS = ("stop_reason", "matched_stop", "stopping_word")
# Where tokens stand: in vLLM's choices, and in what llama.cpp tells besides.
_TOKEN_FIELDS = ("token_ids", "tokens")
_BESIDES = "__verbose"
# What is beyond these is not a token's number, and not the logarithm of a probability but for rounding.
_MOST_TOKEN = 2**31
_LOWEST, _HIGHEST = -1e9, 1e-3


@dataclass(frozen=True)
class Completion:
    """What counts of a completion.

    Args:
        reply: text, end and counts.
        token_ids: the tokens that were written, what ended them included; `None` where the server does not tell.
        stopped_at: the text at which it stopped, without being part of it; empty for none, `None` if that is not told.
        scores: log-probabilities of some tokens at the first place, the one that was written among them.
    """

    reply: Reply
    token_ids: tuple[int, ...] | None = None
    stopped_at: str | None = None
    scores: Mapping[Token, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.reply.content

    @property
    def prompt_tokens(self) -> int | None:
        return self.reply.prompt_tokens


def read_completion(body: bytes) -> Completion:
    """Reads the body of a completion of status 200, or raises what it says of a failure."""
    choice, content = read_choice(body)
    text = choice.get("text")
    if not isinstance(text, str):
        raise UnreadableReplyError(body.decode("utf-8", "replace"))
    # Ends, filters and counts are those of a chat completion.
    chat = {"finish_reason": choice.get("finish_reason"), "message": {"content": text}}
    reply = read_reply(json.dumps({"choices": [chat], "usage": content.get("usage")}).encode())
    # Whatever a chat's text would be made of: what is sent back has to be what was written.
    reply = replace(reply, content=text.encode("utf-8", "replace").decode("utf-8"))
    besides = content.get(_BESIDES)
    told = {**(besides if isinstance(besides, dict) else {}), **choice}
    ids = next((told[name] for name in _TOKEN_FIELDS if told.get(name)), None)
    written = tuple(ids) if isinstance(ids, list) and all(map(_is_token, ids)) else None
    stops = [told[name] for name in _STOP_FIELDS if name in told]
    stopped_at = None if not stops else stops[0] if isinstance(stops[0], str) else ""
    return Completion(reply, written, stopped_at, _scores(choice.get("logprobs")))


def _scores(told: Any) -> dict[Token, float]:
    """Log-probabilities at the first place, in the form of OpenAI's completions, or of its chat as llama.cpp has it."""
    pairs = _of_chat(told) if isinstance(told, dict) and "content" in told else _of_completions(told)
    found: dict[Token, float] = {}
    for token, score in pairs:
        if type(score) in (int, float) and _LOWEST < score < _HIGHEST:
            # Different tokens may have one text.
            found[token] = max(min(float(score), 0.0), found.get(token, -math.inf))
    return found


def _of_completions(told: Any) -> Iterator[tuple[Token, Any]]:
    if not isinstance(told, dict):
        return
    top, tokens, own = (told.get(name) for name in ("top_logprobs", "tokens", "token_logprobs"))
    if isinstance(top, list) and top and isinstance(top[0], dict):
        yield from ((_token(text), score) for text, score in top[0].items())
    if isinstance(tokens, list) and isinstance(own, list) and tokens and own:
        yield _token(tokens[0]), own[0]


def _of_chat(told: Mapping[str, Any]) -> Iterator[tuple[Token, Any]]:
    places = told["content"]
    first = places[0] if isinstance(places, list) and places else None
    if not isinstance(first, dict):
        return
    top = first.get("top_logprobs")
    for each in [first, *(top if isinstance(top, list) else [])]:
        if isinstance(each, dict):
            number = each.get("id")
            yield (number if _is_token(number) else _token(each.get("token"))), each.get("logprob")


def _is_token(number: Any) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < _MOST_TOKEN


def _token(text: Any) -> Token:
    said = str(text)
    number = said.removeprefix(_NUMBERED)
    return int(number) if number != said and number.isdecimal() else said
