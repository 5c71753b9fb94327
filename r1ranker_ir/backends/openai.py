"""Any server with an OpenAI-compatible chat endpoint, through the official SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from r1ranker_ir.backends.endpoint import Endpoint, find_endpoint
from r1ranker_ir.backends.thoughts import join_reasoning, split_thought
from r1ranker_ir.backends.tokens import EstimatedCounts, TokenCounts, TokenizerCounts, cut_at_word
from r1ranker_ir.errors import BackendError, InputError, missing_extra
from r1ranker_ir.types import Answer, Call, ClosedAt, Message, Usage

try:
    from openai import AsyncOpenAI, OpenAIError, Timeout
    from openai.types.chat import ChatCompletion

    from r1ranker_ir.backends import failures
except ImportError as error:
    raise missing_extra("the openai backend", "openai", error) from error

_log = logging.getLogger(__name__)

LimitField = Literal["max_tokens", "max_completion_tokens"]
_OTHER_FIELD: dict[LimitField, LimitField] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
ANSWER_TOKENS = 160
_TOKENS_PER_IDENTIFIER = 8
_CONNECT_SECONDS = 10.0
_CALLS_PER_SLOT = 4
# Between the samples of one call; runs with the seeds 0, 1, 2, … share none.
_SEEDS_APART = 1_000_003
_Result = TypeVar("_Result")


class OpenAIBackend:
    """A model behind a chat-completions endpoint: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted ones.

    Such servers can't be made to choose among the identifiers, so an answer's text is left to be parsed. A thought
    that does not end within its limit can't be closed portably either: what came is returned, marked as an unended
    thought by `<think>` in front and by `thought_closed`, and the strategy repairs and counts it. `closed_at` tells a
    thought that ran into the limit from one within which the model ended its turn.

    The key is read from `OPENAI_API_KEY` and from nowhere else; it is kept out of errors, answers and logs, also when
    a server sends it back. Time-outs, dropped connections and the statuses 408, 409, 429 and 5xx are tried again by
    the SDK, with growing, jittered pauses, or after the time that the server asks for (up to two minutes).

    Args:
        model: the model's name as the server knows it (for `transformers serve` its hub name or folder).
        base_url: the API's root, such as `http://127.0.0.1:8000/v1`; without one, `OPENAI_BASE_URL` or OpenAI's own.
        concurrency: requests in flight at once, over all threads that use this backend.
        batch_size: how many calls it likes to be given at once; `None` for four times the concurrency, so that the
            slots stay busy while the slowest answer of a batch is awaited.
        max_thought_tokens: tokens for the thought; the answer gets 160 more, or 8 an identifier if that is more.
        temperature: 0 for greedy decoding; `None` sends none, for models that refuse the parameter.
        seed: sent with every request; `None` sends none. Not every server heeds it.
        timeout: seconds that a server may stay silent before a request counts as lost.
        max_retries: how often a request is tried again.
        context_length: tokens that prompt and answer may take together, if known.
        tokenizer: Hugging Face name or folder of the served model's tokenizer, for exact token counts; without it
            they are estimated (see `EstimatedCounts`).
        limit_field: the request field that holds the token limit. Newer hosted models refuse `max_tokens`, some
            local servers ignore `max_completion_tokens`; `auto` begins with the latter at OpenAI and with the former
            elsewhere, and changes over when the server refuses it.
        extra_body: further fields of the request, such as `{"chat_template_kwargs": {"enable_thinking": False}}`.

    Raises:
        InputError: if an argument is out of range.
        MissingExtraError: if `tokenizer` is given and transformers is not installed.
        CheckpointError: if the tokenizer can't be loaded.
        BackendError: if OpenAI's own API is meant and `OPENAI_API_KEY` is not set.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        concurrency: int = 8,
        batch_size: int | None = None,
        max_thought_tokens: int = 1024,
        temperature: float | None = 0.0,
        seed: int | None = 0,
        timeout: float = 120.0,
        max_retries: int = 5,
        context_length: int | None = None,
        tokenizer: str | None = None,
        limit_field: LimitField | Literal["auto"] = "auto",
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        if not model.strip():
            raise InputError("model is blank: give the name under which the server knows its model")
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("batch_size", 1 if batch_size is None else batch_size, 1),
            ("max_thought_tokens", max_thought_tokens, 1),
            ("max_retries", max_retries, 0),
            ("context_length", 1 if context_length is None else context_length, 1),
        ):
            if value < least:
                raise InputError(f"{name} is {value}: give {least} or more")
        if timeout <= 0:
            raise InputError(f"timeout is {timeout} seconds: give more than 0")
        if limit_field not in ("auto", *_OTHER_FIELD):
            raise InputError(f"limit_field is {limit_field!r}: use auto, max_tokens or max_completion_tokens")

        self._endpoint = find_endpoint(base_url)
        self._counts: TokenCounts = EstimatedCounts() if tokenizer is None else TokenizerCounts(tokenizer)
        self.name = model
        self.batch_size = concurrency * _CALLS_PER_SLOT if batch_size is None else batch_size
        self.context_length = context_length
        self.answer_reserve = max_thought_tokens + ANSWER_TOKENS
        self.control_tokens = self._counts.control_tokens

        self._concurrency = concurrency
        self._max_thought_tokens = max_thought_tokens
        self._timeout = timeout
        self._max_retries = max_retries
        self._may_change_field = limit_field == "auto"
        self._limit_field: LimitField = _first_field(self._endpoint) if limit_field == "auto" else limit_field
        sampling = {"temperature": temperature, "seed": seed, "extra_body": dict(extra_body) if extra_body else None}
        self._options = {name: value for name, value in sampling.items() if value is not None}
        self._asked_with = {
            "base_url": self._endpoint.base_url,
            "model": model,
            "max_thought_tokens": max_thought_tokens,
            "limit_field": limit_field,
            "tokenizer": tokenizer,
            **self._options,
        }
        self._backwards = True
        self._connection: _Connection | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"OpenAIBackend({self.name!r}, base_url={self._endpoint.scrub(self._endpoint.base_url)!r})"

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that decides an answer besides the call, as far as it can be seen from here.

        A server may put another model behind the same name, and then nothing here changes.
        """
        known: dict[str, Any] = json.loads(self._endpoint.scrub(json.dumps(self._asked_with, sort_keys=True)))
        sent = {**self._options, **(known.get("extra_body") or {})}
        sampled = sent.get("temperature") != 0 and sent.get("seed") is None
        reason = f"{self.name!r} is asked to sample (temperature {sent.get('temperature')}) without a seed"
        return {"backend": "openai", **known, **({"not_cacheable": reason} if sampled else {})}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers the calls over HTTP, several at a time.

        They are sent in their order and in reverse by turns: those of the rankings that were answered last go first, as
        long as a server's prefix cache, which drops what was used least recently, still holds their beginnings.

        Args:
            calls: the questions.

        Returns:
            One answer a call, in the order of the calls.

        Raises:
            BackendError: if a request failed for good; the others are cancelled.
            CheckpointError: if the chat template of the given `tokenizer` leaves a text out.
        """
        if not calls:
            return []
        # As the served model's chat template takes them, if it is known: a text that it drops is an error before
        # anything is sent.
        calls = [replace(call, messages=self._counts.turns(call.messages)) for call in calls]
        connection = self._open_connection()
        self._backwards = not self._backwards
        step = -1 if self._backwards else 1
        failure, answers = connection.run(self._answer_all(connection, calls[::step]))
        if failure is not None:
            raise failure
        return answers[::step]

    def count_tokens(self, text: str) -> int:
        """Counts the tokens of plain text: exactly with a `tokenizer`, otherwise by `EstimatedCounts`."""
        return self._counts.count(text)

    def cut_text(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning of the text in whole words that takes at most `max_tokens` tokens."""
        return cut_at_word(text, max_tokens, self._counts.count)

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a whole prompt: exactly with a `tokenizer`, otherwise by `EstimatedCounts`."""
        return self._counts.count_prompt(messages)

    def _open_connection(self) -> _Connection:
        with self._opening:
            # A forked child inherits the object but not the thread that its loop runs in.
            if self._connection is None or self._connection.pid != os.getpid():
                self._connection = _Connection(self._make_client(), self._concurrency)
                weakref.finalize(self, self._connection.close)
            return self._connection

    def _make_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(
            api_key=self._endpoint.key,
            base_url=self._endpoint.base_url,
            default_headers=self._endpoint.headers,
            timeout=Timeout(self._timeout, connect=min(self._timeout, _CONNECT_SECONDS)),
            max_retries=self._max_retries,
        )

    def _explain(self, error: Exception) -> str:
        """Says what failed, where, and what to do, without secrets."""
        # Scrubbed before it is shortened: a cut through a key would leave half of it standing.
        words = failures.shorten(self._endpoint.scrub(failures.words_of(error), shortest=1))
        advice = failures.what_to_do(
            error, attempts=self._max_retries + 1, concurrency=self._concurrency, timeout=self._timeout
        )
        return self._endpoint.scrub(
            f"the server at {self._endpoint.base_url} {failures.what_failed(error)} when asked for model "
            f"{self.name!r}{f': {words}' if words else ''}. {advice}"
        )

    async def _answer_all(
        self, connection: _Connection, calls: Sequence[Call]
    ) -> tuple[BackendError | None, list[Answer]]:
        tasks: list[asyncio.Task[Answer]] = []
        failure: BackendError | None = None
        try:
            async with asyncio.TaskGroup() as group:  # the first failure cancels the rest
                tasks += [group.create_task(self._answer_one(connection, call)) for call in calls]
        except* BackendError as failed:
            failure = next(error for error in failed.exceptions if isinstance(error, BackendError))
        return failure, [] if failure else [task.result() for task in tasks]

    async def _answer_one(self, connection: _Connection, call: Call) -> Answer:
        async with connection.slots:
            reply = await self._ask(connection.client, call)
        if isinstance(reply, Exception):
            # Not chained to the SDK's error: that one holds the request with its headers, and the unscrubbed reply.
            raise BackendError(self._explain(reply))
        return self._read(call, reply)

    async def _ask(self, client: AsyncOpenAI, call: Call) -> ChatCompletion | Exception:
        """Asks once, and once more with the limit under its other name if this one is refused."""
        field = self._limit_field
        reply = await self._request(client, call, field)
        if not (self._may_change_field and isinstance(reply, Exception) and failures.refuses(reply, field)):
            return reply
        other = _OTHER_FIELD[field]
        second = await self._request(client, call, other)
        if isinstance(second, Exception):
            # Refused again: the name of the limit was not what the server minded, and the first reply says what was.
            return reply if failures.status_of(second) in (400, 422) else second
        if self._limit_field == field:
            _log.info("%s does not take %s; from here on it is sent %s", self.name, field, other)
            self._limit_field = other
        return second

    async def _request(self, client: AsyncOpenAI, call: Call, field: LimitField) -> ChatCompletion | Exception:
        identifiers = len(call.identifiers) if call.form == "order" else 1
        limit = self._max_thought_tokens + max(ANSWER_TOKENS, _TOKENS_PER_IDENTIFIER * identifiers)
        # Lone surrogates, as broken JSON leaves them in passages, can't be sent as UTF-8.
        messages: Any = [
            {"role": message.role, "content": message.content.encode("utf-8", "replace").decode("utf-8")}
            for message in call.messages
        ]
        options: dict[str, Any] = {**self._options, field: limit}
        if call.sample and "seed" in options:
            options["seed"] += _SEEDS_APART * call.sample
        try:
            reply = await client.chat.completions.create(model=self.name, messages=messages, **options)
        except (OpenAIError, ValueError) as error:  # ValueError: a reply that is no JSON
            return error
        return reply if _is_completion(reply) else failures.UnreadableReplyError(_raw(reply))

    def _read(self, call: Call, reply: ChatCompletion) -> Answer:
        choice = reply.choices[0]
        content = self._endpoint.scrub(choice.message.content or "")
        reasoning = self._endpoint.scrub(_reasoning(choice.message))
        ran_out = choice.finish_reason == "length"
        text = join_reasoning(reasoning, content, ended=bool(content) or not ran_out)
        closed_at = _closed_at(text, thought_alone=bool(reasoning) and not content.strip(), ran_out=ran_out)
        if closed_at and text and "<think>" not in text:
            # The chat template had opened the thought; without this mark its numbers would pass for an answer.
            text = f"<think>{text}"
        counted, completion_tokens = _used_tokens(reply)
        prompt_tokens = self.count_prompt_tokens(call.messages) if counted is None else counted
        reused = _reused_tokens(reply)
        return Answer(
            text=text,
            thought=split_thought(text)[0],
            thought_closed=closed_at is not None,
            closed_at=closed_at,
            usage=Usage(
                calls=1,
                prompt_tokens=prompt_tokens,
                completion_tokens=self.count_tokens(text) if completion_tokens is None else completion_tokens,
            ),
            prompt_tokens_computed=None if reused is None else max(0, prompt_tokens - reused),
        )


class _Connection:
    """An SDK client and the event loop that it lives in, in a thread of its own.

    The caller may be inside a loop already, so the loop can't be the caller's; and unlike a pool of blocked threads,
    a loop can drop requests that are under way when a batch has failed or is interrupted.
    """

    def __init__(self, client: AsyncOpenAI, concurrency: int) -> None:
        self.pid = os.getpid()
        self.client = client
        self.slots = asyncio.Semaphore(concurrency)
        self._closing = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._live, args=(started,), name="r1ranker-openai", daemon=True)
        self._thread.start()
        self._loop = started.result()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs a coroutine in the connection's loop and waits for it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # without effect unless the wait was interrupted

    def close(self) -> None:
        """Drops what is under way and ends the thread."""
        if self.pid != os.getpid() or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._closing.set)
        # The last reference to a backend may be dropped by its own loop, which must not wait for itself.
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def _live(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        async def until_closed() -> None:
            async with self.client:
                started.set_result(asyncio.get_running_loop())
                await self._closing.wait()

        asyncio.run(until_closed())


def _closed_at(text: str, *, thought_alone: bool, ran_out: bool) -> ClosedAt | None:
    """Where a thought ended that has no end in the text: at the limit, as the server says, or with the model's turn.

    Args:
        text: thought and answer.
        thought_alone: the server gave a thought apart, and nothing else.
        ran_out: the token limit ended the text.
    """
    unended = "<think>" in text and "</think>" not in text
    if "<answer>" in text:
        return "answer" if unended else None
    if ran_out:
        return None if "</think>" in text else "limit"
    # A text without any tag that a model ended itself is an answer.
    return "end_of_turn" if thought_alone or unended else None


def _first_field(endpoint: Endpoint) -> LimitField:
    host = urlsplit(endpoint.base_url).hostname or ""
    return "max_completion_tokens" if host == "api.openai.com" or host.endswith(".api.openai.com") else "max_tokens"


def _is_completion(reply: Any) -> bool:
    """Whether a reply has the form that is read here; the SDK builds its objects from anything, unchecked."""
    choices = getattr(reply, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    return message is not None and isinstance(getattr(message, "content", None), str | None)


def _used_tokens(reply: ChatCompletion) -> tuple[int | None, int | None]:
    """Prompt and completion tokens as the server counts them, `None` where it does not."""
    counts = (getattr(reply.usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
    return prompt_tokens, completion_tokens


def _reused_tokens(reply: ChatCompletion) -> int | None:
    """How many of the prompt's tokens the server had in its prefix cache, `None` where it does not say."""
    reused = getattr(getattr(reply.usage, "prompt_tokens_details", None), "cached_tokens", None)
    return reused if isinstance(reused, int) else None


def _raw(reply: object) -> str:
    return reply.model_dump_json(exclude_none=True, warnings=False) if isinstance(reply, ChatCompletion) else str(reply)


def _reasoning(message: object) -> str:
    """The thought of a server that parses it out: vLLM, SGLang and DeepSeek have two names for the field."""
    found = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((value for value in found if isinstance(value, str) and value.strip()), "")
