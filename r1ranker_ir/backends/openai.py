"""Any server with an OpenAI-compatible chat endpoint, through the official SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

from r1ranker_ir.backends.base import Turn
from r1ranker_ir.backends.chat_answers import read_chat_answer
from r1ranker_ir.backends.chat_requests import SEEDS_APART, ChatRequests
from r1ranker_ir.backends.chat_template import merged
from r1ranker_ir.backends.declared.openai import OPENAI, Api
from r1ranker_ir.backends.endpoint import find_endpoint
from r1ranker_ir.backends.limits import check_least
from r1ranker_ir.backends.refusals import LIMIT_FIELDS, LimitField, RequestForm, left_out_by_hand
from r1ranker_ir.backends.replies import Reply, read_reply
from r1ranker_ir.backends.server_scores import (
    NO_SCORES,
    NO_TOKENIZER,
    WAYS,
    NoScoresError,
    ScoredText,
    lacks_endpoint,
    lacks_scores,
    read_scores,
)
from r1ranker_ir.backends.tokens import CountedTexts, EstimatedCounts, TokenizerCounts
from r1ranker_ir.errors import BackendError, CallError, InputError, missing_extra
from r1ranker_ir.files.byte_sizes import parse_bytes
from r1ranker_ir.types import Answer, Call, Message, Usage

try:
    from openai import AsyncOpenAI

    from r1ranker_ir.backends import failures
    from r1ranker_ir.backends.attempts import Attempts
    from r1ranker_ir.backends.completions import NO_TOKENIZER as PROMPTS_NEED_TOKENIZER
    from r1ranker_ir.backends.completions import Completions
    from r1ranker_ir.backends.connection import MOST_BYTES, Connection, open_connection
    from r1ranker_ir.backends.server_abilities import NO_COMPLETIONS, Abilities, Post, RequestFailedError
    from r1ranker_ir.backends.server_replies import Completion, read_completion
except ImportError as error:
    raise missing_extra("the openai backend", "openai", error) from error

_log = logging.getLogger(__name__)

ANSWER_TOKENS = 160
_TOKENS_PER_IDENTIFIER = 8
# Raised whenever the completions endpoint is asked the same call otherwise than before.
_CHOOSING = 1


class OpenAIBackend(CountedTexts):
    """A model behind a chat-completions endpoint: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted ones.

    With `api="chat"`, an answer is asked for by a JSON schema that has the call's identifiers alone, and with
    log-probabilities, which become the identifiers' probabilities. What a server refuses or does not know is left out
    from then on: the answer's text is then parsed. A thought that does not end within its limit can't be closed
    portably: what came is returned, marked as an unended thought by `<think>` in front and by `thought_closed`, and the
    strategy repairs and counts it. `closed_at` tells a thought that ran into the limit from one within which the model
    ended its turn.

    With `api="completions"` prompts are rendered here, thoughts are closed, and answers are chosen among the
    identifiers, as on the backend `transformers`; see `backends.completions`.

    The key is read from `OPENAI_API_KEY` alone; it is kept out of errors, answers and logs, also when a server sends it
    back. What may pass is tried again, with growing, jittered pauses or after the time that the server asks for.

    Args:
        concurrency: requests in flight at once, over all threads that use this backend.
        batch_size: how many rankings are under way at once; `None` for twice the concurrency.
        max_thought_tokens: tokens for the thought; the answer gets 160 more, or 8 an identifier if that is more.
        temperature: 0 for greedy decoding; `None` sends none, for models that refuse the parameter.
        seed: `None` sends none.
        timeout: seconds that a server may stay silent before a request counts as lost.
        request_timeout: seconds that a request may take in all.
        wait: seconds for which a server that can't be reached is waited for; `None` for 90 where it has answered
            before, and as long as `max_retries` take where it has not.
        max_reply_bytes: a longer reply is not read; bytes, or a size such as `16MiB`.
        tokenizer: name or folder of the served model's tokenizer; without it tokens are estimated (`EstimatedCounts`).
        api: `chat`, or `completions` for servers that go on from a prompt of ours, which needs `tokenizer`.
        limit_field: the request field that holds the token limit; `auto` begins with `max_completion_tokens` at OpenAI
            and with `max_tokens` elsewhere, and changes over when the server refuses it.
        leave_out: what is never sent, a list or a text with commas: `response_format`, `logprobs`, `system` (its turn
            becomes part of the user's), `temperature`, `seed`, `max_tokens`, `max_completion_tokens`. What a server
            refuses is left out without being named.
    """

    _counts: EstimatedCounts | TokenizerCounts

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
        request_timeout: float = 1800.0,
        max_retries: int = 5,
        wait: float | None = None,
        max_reply_bytes: int | str = MOST_BYTES,
        context_length: int | None = None,
        tokenizer: str | None = None,
        limit_field: LimitField | Literal["auto"] = "auto",
        extra_body: Mapping[str, object] | None = None,
        leave_out: str | Iterable[str] = (),
        api: Api = "chat",
    ) -> None:
        if not model.strip():
            raise InputError("model is blank: give the name under which the server knows its model")
        check_least(1, concurrency=concurrency, batch_size=batch_size)
        if api not in get_args(Api):
            raise InputError(f"api is {api!r}: use {' or '.join(get_args(Api))}")
        check_least(0 if api == "completions" else 1, max_thought_tokens=max_thought_tokens)
        left_out = left_out_by_hand(leave_out)
        if api == "completions" and tokenizer is None:
            raise InputError(PROMPTS_NEED_TOKENIZER)
        if api == "completions" and left_out & {*LIMIT_FIELDS}:
            raise InputError("leave_out names max_tokens, without which api='completions' can't ask for one token")
        check_least(1, context_length=context_length)
        check_least(0, max_retries=max_retries, wait=wait)
        for name, seconds in (("timeout", timeout), ("request_timeout", request_timeout)):
            if not seconds > 0:
                raise InputError(f"{name} is {seconds} seconds: give more than 0")
        most_bytes = parse_bytes(max_reply_bytes, "max_reply_bytes")
        check_least(1, max_reply_bytes=most_bytes)
        if limit_field not in ("auto", *LIMIT_FIELDS):
            raise InputError(f"limit_field is {limit_field!r}: use auto, max_tokens or max_completion_tokens")

        self._endpoint = find_endpoint(base_url)
        self._counts: EstimatedCounts | TokenizerCounts = (
            EstimatedCounts() if tokenizer is None else TokenizerCounts(tokenizer)
        )
        self.name = model
        self.batch_size = 2 * concurrency if batch_size is None else batch_size
        self.context_length = context_length
        self.answer_reserve = max_thought_tokens + ANSWER_TOKENS
        self.control_tokens = self._counts.control_tokens

        self._concurrency = concurrency
        self._max_thought_tokens = max_thought_tokens
        self._timeout = timeout
        self._max_retries = max_retries
        self._most_bytes = most_bytes
        self._attempts = Attempts(max_retries, request_timeout, wait)
        temperature = None if "temperature" in left_out else temperature
        seed = None if "seed" in left_out else seed
        sampling = {"temperature": temperature, "seed": seed, "extra_body": dict(extra_body) if extra_body else None}
        self._options: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}
        known = LIMIT_FIELDS[::-1] if self._endpoint.is_openai else LIMIT_FIELDS
        self._requests = ChatRequests(model, self._options, limit_field, known, left_out)
        # Beside what `temperature` and `seed` say already.
        others = sorted(left_out - {"temperature", "seed"})
        self._asked_with = {
            "base_url": self._endpoint.base_url,
            "model": model,
            "max_thought_tokens": max_thought_tokens,
            "limit_field": limit_field,
            "tokenizer": tokenizer,
            **({"leave_out": others} if others else {}),
            **self._options,
        }
        self.capabilities = OPENAI.capabilities_with({"api": api})
        self._completions: Completions | None = None
        if api == "completions":
            assert isinstance(self._counts, TokenizerCounts)
            self._asked_with |= {"api": api, "choosing": _CHOOSING}
            self._completions = Completions(
                self._counts,
                max_thought_tokens=max_thought_tokens,
                sampling=self._sampled,
                room=lambda call: self._token_limit(call) - max_thought_tokens,
                left_out=left_out,
            )
        self._warned_of_opening = False
        self._ways = WAYS
        self._connection: Connection | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"OpenAIBackend({self.name!r}, base_url={self._endpoint.scrub(self._endpoint.base_url)!r})"

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that decides an answer besides the call, but for another model that a server puts behind its name."""
        known: dict[str, Any] = json.loads(self._endpoint.scrub(json.dumps(self._asked_with, sort_keys=True)))
        sent = {**self._options, **(known.get("extra_body") or {})}
        sampled = sent.get("temperature") != 0 and sent.get("seed") is None
        reason = f"{self.name!r} is asked to sample (temperature {sent.get('temperature')}) without a seed"
        return {"backend": "openai", **known, **({"not_cacheable": reason} if sampled else {})}

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers the calls over HTTP, several at a time; the first failure drops the others."""
        stop = threading.Event()
        futures = [self.submit(call, (0, place), stop) for place, call in enumerate(calls)]
        try:
            return [future.result() for future in futures]
        finally:
            stop.set()
            for future in futures:
                future.cancel()

    def submit(self, call: Call, turn: Turn, stop: threading.Event) -> Future[Answer]:
        """Sends a call as soon as there is a slot; of those that wait, the one with the smallest turn goes first."""
        if call.continuation and not isinstance(self._counts, TokenizerCounts):
            raise InputError(NO_TOKENIZER)
        # As the served model's chat template takes them, if it is known: a text that it drops is an error before
        # anything is sent.
        if self._completions is None:
            call = replace(call, messages=self._turns(call.messages))
        elif not self._requests.form.sends("system"):
            call = replace(call, messages=tuple(merged(call.messages)))
        connection = self._open_connection()
        return connection.start(self._answered(connection, call, turn, stop))

    def _open_connection(self) -> Connection:
        with self._opening:
            # A forked child inherits the object but not the thread that its loop runs in.
            if self._connection is None or self._connection.pid != os.getpid():
                limits = self._timeout, self._most_bytes, self._concurrency
                self._connection = open_connection(self._endpoint, *limits)
                weakref.finalize(self, self._connection.close)
            return self._connection

    def _explain(self, error: Exception) -> str:
        """Says what failed, where, and what to do, without secrets."""
        # Scrubbed before it is shortened: a cut through a key would leave half of it standing.
        words = failures.shorten(self._endpoint.scrub(failures.words_of(error), shortest=1))
        advice = failures.what_to_do(error, self._max_retries + 1, self._concurrency, self._timeout)
        failed = f"the server at {self._endpoint.base_url} {failures.what_failed(error)} when asked for model"
        return self._endpoint.scrub(f"{failed} {self.name!r}{f': {words}' if words else ''}. {advice}")

    async def _answered(self, connection: Connection, call: Call, turn: Turn, stop: threading.Event) -> Answer:
        async with connection.slots.taken(turn):
            if stop.is_set():
                raise asyncio.CancelledError
            ask = self._ask if self._completions is None else self._complete
            reply = await (self._score if call.continuation else ask)(connection.client, call, stop)
        if isinstance(reply, Answer):
            return reply
        # Not chained to the SDK's error: that one holds the request with its headers, and the unscrubbed reply.
        if call.continuation and self._lacks_scores(reply):
            raise BackendError(self._endpoint.scrub(NO_SCORES.format(self._endpoint.base_url, self.name)))
        if failures.concerns_all(reply):
            raise BackendError(self._explain(reply))
        failure = CallError(self._explain(reply))
        failure.refused = failures.is_refused(reply)
        raise failure

    def find_abilities(self) -> Abilities | None:
        """Asks the server what it can do at `/completions`, where that is where it is asked."""
        if self._completions is None:
            return None
        stop, connection = threading.Event(), self._open_connection()

        async def found() -> Abilities | Exception:
            assert self._completions is not None
            try:
                return await self._completions.find_abilities(self._post(connection.client, stop))
            except RequestFailedError as error:
                return error.failure

        reply = connection.start(found()).result()
        if isinstance(reply, Exception):
            self._check_endpoint(reply)
            raise BackendError(self._explain(reply))
        return reply

    async def _complete(self, client: AsyncOpenAI, call: Call, stop: threading.Event) -> Answer | Exception:
        """Has a thought written and an answer chosen, in several requests."""
        assert self._completions is not None
        failure: Exception | None = None
        try:
            answer = await self._completions.answer(call, self._post(client, stop))
        except RequestFailedError as error:
            failure = error.failure
        if failure is not None:
            # Not within the handler: what is raised there keeps the failure, unscrubbed, as its context.
            self._check_endpoint(failure)
            return failure
        return replace(
            answer,
            text=self._endpoint.scrub(answer.text),
            thought=self._endpoint.scrub(answer.thought),
            provisional=not self._requests.is_repeatable(self._requests.form),
        )

    def _post(self, client: AsyncOpenAI, stop: threading.Event) -> Post:
        create: Any = client.completions.with_raw_response.create
        more, requests = self._options.get("extra_body") or {}, self._requests

        async def post(prompt: list[int] | str, fields: Mapping[str, Any], *, trial: bool = False) -> Completion:
            form = requests.form
            while True:
                failed = 0
                sent = {name: value for name, value in fields.items() if name not in form.left_out}

                def after(failure: Exception, form: RequestForm = form, sent: Any = sent) -> RequestForm | None:
                    parts = {"temperature", "seed"} & {*sent} - {*more}
                    return form.after_refusal(failures.status_of(failure), failures.words_of(failure), parts)

                def is_final(failure: Exception, after: Any = after) -> bool:
                    nonlocal failed
                    failed += failures.status_of(failure) in (500, 501)
                    return after(failure) is not None or (trial and failed > 1)

                send = partial(create, model=self.name, prompt=prompt, extra_body={**more, **sent})
                reply = await self._attempts.until_replied(stop, send, read_completion, is_final=is_final)
                if not isinstance(reply, Exception):
                    requests.take(form)
                    return reply
                if (further := after(reply)) is None:
                    raise RequestFailedError(reply, self._endpoint.scrub(failures.words_of(reply), shortest=1))
                form = further

        return post

    def _sampled(self, sample: int) -> dict[str, Any]:
        """The fields of a request at the completions endpoint that writes a thought."""
        options = {name: value for name, value in self._options.items() if name != "extra_body"}
        if "seed" in options:
            options["seed"] += SEEDS_APART * sample
        return {**options, **(self._options.get("extra_body") or {})}

    def _check_endpoint(self, failure: Exception) -> None:
        """Raises a BackendError if the server has no completions endpoint."""
        if lacks_endpoint(failures.status_of(failure), failures.words_of(failure)):
            raise BackendError(self._endpoint.scrub(NO_COMPLETIONS.format(self._endpoint.base_url)))

    @staticmethod
    def _lacks_scores(failure: Exception) -> bool:
        return lacks_scores(failure, failures.status_of(failure), failures.words_of(failure))

    async def _score(self, client: AsyncOpenAI, call: Call, stop: threading.Event) -> Answer | Exception:
        """Asks for log-probabilities, and once more in another way if the server does not know the first one."""
        assert isinstance(self._counts, TokenizerCounts)
        text = ScoredText(*self._counts.scored_ids(call.messages, call.continuation))
        create: Any = client.completions.with_raw_response.create
        more = self._options.get("extra_body") or {}
        failed: Exception = NoScoresError()
        for way in self._ways:
            fields = way(text)
            prompt, most = fields.pop("prompt"), fields.pop("max_tokens")
            send = partial(create, model=self.name, prompt=prompt, max_tokens=most, temperature=0)
            scores = await self._attempts.until_replied(
                stop,
                partial(send, extra_body={**more, **fields}),
                partial(read_scores, text=text),
                is_final=self._lacks_scores,
            )
            if not isinstance(scores, Exception):
                self._ways = (way,)
                read = len(text.prompt)
                return Answer(
                    call.continuation,
                    log_probabilities=scores.values,
                    usage=Usage(1, read, len(text.continuation)),
                    prompt_tokens_computed=None if scores.reused is None else max(0, read - scores.reused),
                )
            failed = scores
            if not self._lacks_scores(failed):
                break
        return failed

    async def _ask(self, client: AsyncOpenAI, call: Call, stop: threading.Event) -> Answer | Exception:
        """Asks, and again without what the server refuses; what it refused is left out from then on."""
        requests, limit = self._requests, self._token_limit(call)
        started = form = requests.form
        first: Exception | None = None
        create: Any = client.chat.completions.with_raw_response.create
        while True:
            fields = requests.fields(call, form, limit)

            def after(failure: Exception, form: RequestForm = form, fields: Any = fields) -> RequestForm | None:
                return requests.after(form, failures.status_of(failure), failures.words_of(failure), fields)

            reply = await self._attempts.until_replied(stop, partial(create, **fields), read_reply, is_final=after)
            if isinstance(reply, Reply):
                answer = self._read(call, reply, form, by_schema="response_format" in fields)
                requests.answered(form, fields, reply, answer)
                return answer
            if (further := after(reply)) is None:
                requests.refused(form)
                # If it refused the limit's other name for something else, its first words say what.
                return first if first is not None and form.limit != started.limit else reply
            form, first = further, first or reply

    def _turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The turns to send: without the beginning of the assistant's, unless the server was told to go on from it."""
        if messages[-1].role != "assistant":
            return self._counts.turns(messages)
        if (self._options.get("extra_body") or {}).get("continue_final_message"):
            return (*self._counts.turns(messages[:-1]), messages[-1])
        if not self._warned_of_opening:
            self._warned_of_opening = True
            _log.warning(
                "the prompt begins the assistant's turn (%r), and servers can't be told so portably: it is left out. "
                "For vLLM and SGLang give extra_body={'continue_final_message': True, 'add_generation_prompt': False}",
                messages[-1].content,
            )
        return self._counts.turns(messages[:-1])

    def _token_limit(self, call: Call) -> int:
        identifiers = len(call.identifiers) if call.form == "order" else 1
        room = _TOKENS_PER_IDENTIFIER * identifiers
        if call.named:
            room = sum(self.count_tokens(identifier) + _TOKENS_PER_IDENTIFIER for identifier in call.identifiers)
        return self._max_thought_tokens + max(ANSWER_TOKENS, room)

    def _read(self, call: Call, reply: Reply, form: RequestForm, *, by_schema: bool) -> Answer:
        scrubbed = replace(
            reply, content=self._endpoint.scrub(reply.content), reasoning=self._endpoint.scrub(reply.reasoning)
        )
        answer = read_chat_answer(call, scrubbed, by_schema=by_schema)
        counted, written = reply.prompt_tokens, reply.completion_tokens
        prompt_tokens = self.count_prompt_tokens(call.messages) if counted is None else counted
        return replace(
            answer,
            usage=Usage(1, prompt_tokens, self.count_tokens(answer.text) if written is None else written),
            prompt_tokens_computed=None if reply.reused_tokens is None else max(0, prompt_tokens - reply.reused_tokens),
            provisional=not reply.is_final(self._token_limit(call)) or not self._requests.is_repeatable(form),
        )
