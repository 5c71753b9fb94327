"""What a server's completions endpoint can do besides writing text, found out by asking it."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from r1ranker_ir.backends import failures
from r1ranker_ir.backends.server_replies import Completion
from r1ranker_ir.types import ChosenBy

_log = logging.getLogger(__name__)

# No model says these by itself behind such a question.
_WORDS = ("qzx", "vbk")
_QUESTION = "One of two words:"
_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
_NOT_KNOWN = (400, 404, 405, 422, 500, 501)
_TRIAL_TOKENS = 8


NO_COMPLETIONS = (
    "the server at {} has no endpoint /completions, which api='completions' goes by: use api='chat', or serve the "
    "model with vLLM, SGLang or llama.cpp"
)
"""What is said of a server without the endpoint; with its address."""


class RequestFailedError(Exception):
    """A request that was not answered; `failure` is what the client or the reply said of it, `said` the same without
    secrets."""

    def __init__(self, failure: Exception, said: str) -> None:
        super().__init__(said)
        self.failure = failure

    @property
    def is_refusal(self) -> bool:
        """Whether the server does not know what it was asked to do."""
        return failures.status_of(self.failure) in _NOT_KNOWN


class Post(Protocol):
    """Sends a prompt, as tokens or text, with fields of the request; raises a RequestFailedError.

    A `trial` is of fields that the server may not know, which some call a failure of their own.
    """

    def __call__(
        self, prompt: list[int] | str, fields: Mapping[str, Any], *, trial: bool = False
    ) -> Awaitable[Completion]: ...


def _in_grammar(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def _in_pattern(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text).replace("\n", "\\n")


class Constraint(NamedTuple):
    """A server's own way of being held to some texts."""

    name: str
    of: Callable[[Sequence[str]], dict[str, Any]]


CONSTRAINTS = (
    Constraint("structured_outputs", lambda texts: {"structured_outputs": {"choice": list(texts)}}),
    Constraint("guided_choice", lambda texts: {"guided_choice": list(texts)}),
    Constraint("regex", lambda texts: {"regex": f"({'|'.join(map(_in_pattern, texts))})"}),
    Constraint("grammar", lambda texts: {"grammar": f"root ::= {' | '.join(map(_in_grammar, texts))}"}),
)
"""vLLM's, that of its earlier versions, SGLang's and llama.cpp's."""

_TOLD: tuple[dict[str, Any], ...] = (
    {"return_token_ids": True, "skip_special_tokens": False},  # vLLM's
    {"return_tokens": True, "verbose": True},  # llama.cpp's
)
_BY_NUMBER = {"return_tokens_as_token_ids": True}
_SCORES: tuple[dict[str, Any], ...] = (
    # Without a limit, vLLM's, OpenAI's; with tokens by their numbers where that is known.
    {"logprobs": 64, **_BY_NUMBER},
    {"logprobs": 20, **_BY_NUMBER},
    {"logprobs": 20},
    {"logprobs": 5},
    {"n_probs": 64},
)


@dataclass(frozen=True)
class Abilities:
    """What a server can do at `/completions`.

    Args:
        token_ids: it takes prompts as tokens.
        constraint: how it is held to some texts.
        scores: the fields by which it tells log-probabilities of the next token.
        told: the fields by which it tells the tokens that it writes, and keeps special ones in the text.
    """

    token_ids: bool = False
    constraint: Constraint | None = None
    scores: Mapping[str, Any] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen_by(self) -> ChosenBy:
        if self.constraint is not None:
            return "constraint"
        return "parsing" if self.scores is None else "log_probabilities"

    def described(self) -> dict[str, Any]:
        return {
            "token_ids": self.token_ids,
            "constraint": None if self.constraint is None else self.constraint.name,
            "log_probabilities": None if self.scores is None else dict(self.scores),
            "chosen_by": self.chosen_by,
        }


async def find_abilities(
    post: Post, tokenize: Callable[[str], Sequence[int]], left_out: Collection[str] = ()
) -> Abilities:
    """Asks a server a few short questions; raises the RequestFailedError of one that does not answer the simplest.

    Constraints and log-probabilities are not asked for where `response_format` and `logprobs` are `left_out`.
    """
    tokens = list(tokenize(_QUESTION))
    takes_tokens = await _takes_tokens(post, tokens)
    asked: list[int] | str = tokens if takes_tokens else _QUESTION
    told: dict[str, Any] = {}
    for fields in _TOLD:
        reply = await _tried(post, asked, fields, 1)
        # What a server takes may count although it tells no tokens.
        told = fields if reply is not None and (reply.token_ids or not told) else told
        if reply is not None and reply.token_ids:
            break
    scores = None
    for fields in () if "logprobs" in left_out else _SCORES:
        reply = await _tried(post, asked, fields, 1)
        if reply is not None and reply.scores:
            scores = fields
            break
    constraint = None
    for each in () if "response_format" in left_out else CONSTRAINTS:
        reply = await _tried(post, asked, each.of(_WORDS), _TRIAL_TOKENS)
        if reply is not None and "".join(reply.text.split()) in _WORDS:
            constraint = each
            break
    found = Abilities(takes_tokens, constraint, scores, told)
    _log.info("found out at the completions endpoint: %s", found.described())
    return found


async def _takes_tokens(post: Post, tokens: list[int]) -> bool:
    try:
        reply = await post(tokens, {"max_tokens": 1, "temperature": 0})
    except RequestFailedError as error:
        if not error.is_refusal or failures.status_of(error.failure) in (404, 405):
            raise
        await post(_QUESTION, {"max_tokens": 1, "temperature": 0})
        return False
    read = reply.prompt_tokens
    # A server that takes the list for a text reads other tokens; some put one in front.
    return read is None or len(tokens) <= read <= len(tokens) + 1


async def _tried(post: Post, prompt: list[int] | str, fields: Mapping[str, Any], most: int) -> Completion | None:
    """The reply to a trial; `None` where the server does not know what it was asked."""
    try:
        return await post(prompt, {"max_tokens": most, "temperature": 0, **fields}, trial=True)
    except RequestFailedError as error:
        if error.is_refusal:
            return None
        raise
