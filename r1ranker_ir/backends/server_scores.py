"""How servers are asked for the log-probabilities of a given text, and where these stand in their replies."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from r1ranker_ir.backends.replies import read_choice, reused_tokens

NO_SCORES = (
    "the server at {} returns no log-probabilities of a given text for model {!r}, neither by echo and logprobs, nor "
    "by prompt_logprobs, nor under a grammar of tokens at /completions, and the strategy likelihood goes by them: "
    "serve the model with vLLM or llama.cpp, or use the backend 'transformers'"
)
"""What is said of a server that can't tell them; with its address and the model's name."""
NO_TOKENIZER = (
    "the strategy likelihood sends the prompt as tokens, and those of the served model are not known: give tokenizer, "
    "the model's hub name or folder, or on the command line its folder as --settings-from"
)
_MISSING_ENDPOINT = (404, 405, 501)
# llama.cpp says of what it does not know that the server has failed.
_NOT_KNOWN = (400, 422, 500)
# `transformers serve` has no prompts as tokens, and calls fields unexpected.
_SAID_OF_SCORES = re.compile(r"echo|logprobs|extra|unexpected|grammar|prompt must be a string", re.IGNORECASE)


@dataclass(frozen=True)
class ScoredText:
    """A prompt, its assistant's turn opened, and what is scored behind it, as tokens of the served model."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def tokens(self) -> list[int]:
        """All of it: as tokens, so that no server puts something of its own in front."""
        return [*self.prompt, *self.continuation]


Way = Callable[[ScoredText], dict[str, Any]]
"""The fields of a request that makes servers of some kind return them."""


def _read_with(**fields: Any) -> Way:
    """A request that has all read, and a token written, which some servers insist on."""
    return lambda text: {"prompt": text.tokens, "max_tokens": 1, **fields}


def _written_out(text: ScoredText) -> dict[str, Any]:
    """A request that has the continuation written, by a grammar that allows nothing else."""
    rule = " ".join(f"<[{token}]>" for token in text.continuation)
    held = {"grammar": f"root ::= {rule}", "n_probs": 1}
    return {"prompt": list(text.prompt), "max_tokens": len(text.continuation), **held}


WAYS: tuple[Way, ...] = (_read_with(echo=True, logprobs=1), _read_with(prompt_logprobs=1), _written_out)
"""Of the completions endpoint as OpenAI had it, vLLM's own, and llama.cpp's."""


class NoScoresError(Exception):
    """A reply of status 200 without the log-probabilities that were asked for."""


class Scores(NamedTuple):
    """The log-probability of each token of the continuation, and how much of the prompt was in a prefix cache."""

    values: tuple[float, ...]
    reused: int | None


def read_scores(body: bytes, text: ScoredText) -> Scores:
    """Reads them; a NoScoresError says that the reply has none."""
    choice, content = read_choice(body)
    scores = _by_writing(choice, text)
    scores = scores or (_by_prompt(choice, text) or _by_echo(choice))[len(text.prompt) :][: len(text.continuation)]
    if len(scores) < len(text.continuation) or not all(map(_is_score, scores)):
        raise NoScoresError
    return Scores(tuple(map(float, scores)), reused_tokens(content))


def _by_echo(choice: Mapping[str, Any]) -> Sequence[Any]:
    told = choice.get("logprobs")
    scores = told.get("token_logprobs") if isinstance(told, dict) else None
    return scores if isinstance(scores, list) else []


def _by_prompt(choice: Mapping[str, Any], text: ScoredText) -> Sequence[Any]:
    """vLLM's form: beside each token of the prompt the scores of some, its own among them, by their numbers."""
    told = choice.get("prompt_logprobs")
    if not isinstance(told, list) or len(told) != len(text.tokens):
        return []
    own = [
        some.get(str(token)) if isinstance(some, dict) else None for token, some in zip(text.tokens, told, strict=True)
    ]
    return [each.get("logprob") if isinstance(each, dict) else None for each in own]


def _by_writing(choice: Mapping[str, Any], text: ScoredText) -> Sequence[Any]:
    """llama.cpp's form: each token that was written, with its number."""
    told = choice.get("logprobs")
    places = told.get("content") if isinstance(told, dict) else None
    if not isinstance(places, list) or not all(isinstance(place, dict) for place in places):
        return []
    written = tuple(place.get("id") for place in places)
    return [place.get("logprob") for place in places] if written == text.continuation else []


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def lacks_endpoint(status: int | None, words: str) -> bool:
    """Whether a server has nothing at the address; that it does not know the model is another matter."""
    return status in _MISSING_ENDPOINT and "model" not in words.lower()


def lacks_scores(failure: Exception, status: int | None, words: str) -> bool:
    """Whether a server can't tell log-probabilities of a prompt in the way that it was asked."""
    if status in _MISSING_ENDPOINT:
        return lacks_endpoint(status, words)
    refused = status in _NOT_KNOWN and _SAID_OF_SCORES.search(words) is not None
    return refused or isinstance(failure, NoScoresError)
