"""Any causal language model through transformers: free thoughts, then an answer chosen among the identifiers."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from r1ranker_ir.backends.cancelling import check_wanted
from r1ranker_ir.errors import missing_extra
from r1ranker_ir.files.byte_sizes import parse_bytes
from r1ranker_ir.types import Answer, Call, ClosedAt, Usage

try:
    import torch
    import transformers  # noqa: F401
except ImportError as error:
    raise missing_extra("The transformers backend", "local", error) from error

from r1ranker_ir.models.identity import checkpoint_identity
from r1ranker_ir.models.loading import load_model
from r1ranker_ir.models.packed_weights import pack_weights

from .choice import ChoiceSearch, Tokens, told_apart
from .decoding import DecodingSession, SeparateSession, attention_span
from .limits import ANSWER_TOKENS, check_least, configured_context, thought_limit
from .scoring import Scorer
from .states import PromptStates, StateStore, depends_on_beginning_only
from .tagged_answers import (
    ANSWER_START,
    TAIL_TOKENS,
    THOUGHT_END,
    WrittenAnswer,
    closing_of,
    given_opening,
    identifier_tokens,
    opens_thought,
    places_of,
)
from .texts import ChatTokenizer
from .tokens import CountedTexts

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

CACHE_MEMORY = 4 * 2**30
"""Bytes for the keys and values of prompts between the calls of their rankings, unless told otherwise."""
_DECODING = 1
"""Raised whenever this file answers the same call otherwise than before: answers in caches then no longer count."""
_COMPUTED_BY = ("torch", "transformers", "tokenizers")
# Kept for an identifier in a freely written answer; choosing appends and takes back some 3 such sequences.
_TOKENS_PER_IDENTIFIER = 8
_COLUMNS_PER_IDENTIFIER = 3 * _TOKENS_PER_IDENTIFIER


@dataclass
class _Row(WrittenAnswer):
    """One call on its way through a batch."""

    computed: int = 0
    limit: int = 0
    opened: bool = True
    stopped: ClosedAt | None = None
    thinking: bool = True
    rest_of_tag: str = ""
    generator: torch.Generator | None = None


class TransformersBackend(CountedTexts):
    """A local model, on CPU, CUDA or MPS.

    The model thinks until it closes its thought or reaches the limit; then the answer is chosen among the call's
    identifiers by their token scores. With temperature 0 in float32 an answer does not depend on the batch; in lower
    precisions close scores can, and `batch_size=1` is the remedy.

    Args:
        dtype: `float32`, `bfloat16`, `float16` or `auto`: the checkpoint's own, but on a CPU float32, or
            bfloat16 for large models where that is faster.
        device_map: for models over several devices (accelerate); replaces `device`.
        context_length: tokens that prompt and answer may take; by default what the model's configuration says.
        max_thought_tokens: how long a thought may be; 0 for none.
        temperature: 0 for greedy thoughts; above, they are sampled, fixed by `seed`. The answer is never sampled.
        cache_memory: what keys and values of prompts may take between the calls of a ranking, so that what a prompt
            shares with the one before is not computed again: bytes, or a size such as `4GiB`; 0 for none.
        loaded: a model and its tokenizer in memory, in place of loading `model` and of all that says how and where.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str | None = None,
        dtype: str = "auto",
        device_map: str | dict[str, Any] | None = None,
        batch_size: int = 16,
        context_length: int | None = None,
        max_thought_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
        cache_memory: int | str = CACHE_MEMORY,
        trust_remote_code: bool = False,
        revision: str | None = None,
        loaded: tuple[Any, Any] | None = None,
    ) -> None:
        check_least(1, batch_size=batch_size, context_length=context_length)
        check_least(0, max_thought_tokens=max_thought_tokens, temperature=temperature)
        state_bytes = parse_bytes(cache_memory, "cache_memory")
        self.name = os.fspath(model)
        self.batch_size = batch_size
        self.temperature = temperature
        self.seed = seed
        self._revision = revision
        self._in_memory = loaded is not None
        self._loading_began = time.time()
        where: dict[str, Any] = {"device": device, "device_map": device_map, "revision": revision}
        self._model, tokenizer = loaded or load_model(
            self.name, dtype=dtype, trust_remote_code=trust_remote_code, **where
        )
        # A model that was handed over may be trained further, and one with a device_map has hooks in its layers.
        self._packed = loaded is None and device_map is None and pack_weights(self._model)
        self._span = attention_span(self._model)
        reuses = state_bytes > 0 and depends_on_beginning_only(self._model)
        self._states = StateStore(state_bytes) if reuses else None
        self._texts = self._counts = ChatTokenizer(tokenizer)
        self.control_tokens = self._texts.control_tokens
        self.context_length = context_length or configured_context(self._model.config)
        self.max_thought_tokens = thought_limit(max_thought_tokens, self.context_length)
        if self.max_thought_tokens < max_thought_tokens:
            said = "max_thought_tokens %d is more than half of the context of %s (%d tokens): using %d"
            logger.warning(said, max_thought_tokens, self.name, self.context_length, self.max_thought_tokens)
        self.answer_reserve = self.max_thought_tokens + ANSWER_TOKENS
        self._end_ids = self._texts.end_ids(getattr(self._model, "generation_config", None))

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """All that decides an answer besides the call; of a checkpoint folder, every file is read for it once."""
        if self._in_memory:
            origin: dict[str, Any] = {"not_cacheable": f"{self.name!r} was handed over in memory and may change there"}
        else:
            origin = checkpoint_identity(self.name, self._revision, loading_began=self._loading_began)
        reasons = {} if "not_cacheable" not in origin else {"not_cacheable": origin.pop("not_cacheable")}
        # Adapters are put on their base by peft.
        libraries = (*_COMPUTED_BY, *(["peft"] if "base" in origin else []))
        parameters = list(self._model.parameters())
        return {
            "backend": "transformers",
            "checkpoint": origin,
            "chat_template": self._texts.template_digest(),
            "context_length": self.context_length,
            "max_thought_tokens": self.max_thought_tokens,
            "temperature": self.temperature,
            # Greedy thoughts are the same whatever the seed.
            **({"seed": self.seed} if self.temperature > 0 else {}),
            "dtype": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters}),
            "device": sorted({parameter.device.type for parameter in parameters}),
            "decoding": _DECODING,
            # Products of packed weights are added up in another order.
            **({"weights": "packed"} if self._packed else {}),
            **({"adapter": "merged"} if "base" in origin and not hasattr(self._model, "get_base_model") else {}),
            "versions": {name: importlib.metadata.version(name).partition("+")[0] for name in libraries},
            **reasons,
        }

    @property
    def cache_memory_peak(self) -> int:
        return 0 if self._states is None else self._states.peak_bytes

    def forget(self, ranking: int) -> None:
        if self._states is not None:
            self._states.forget(ranking)

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers calls in batches of prompts of similar length."""
        scored = [index for index, call in enumerate(calls) if call.continuation]
        rows = {index: self._row(call) for index, call in enumerate(calls) if not call.continuation}
        order = sorted(rows, key=lambda index: len(rows[index].prompt))
        for start in range(0, len(order), self.batch_size):
            check_wanted()
            self._decode([rows[index] for index in order[start : start + self.batch_size]])
        answers = {index: self._to_answer(row) for index, row in rows.items()}
        if scored:
            answers |= zip(scored, self._score([calls[index] for index in scored]), strict=True)
        return [answers[index] for index in range(len(calls))]

    def _score(self, calls: Sequence[Call]) -> list[Answer]:
        pairs = [self._texts.scored_ids(call.messages, call.continuation) for call in calls]
        scorer = Scorer(self._model, self._texts.pad_id, self.batch_size)
        scored = scorer.score(pairs, [call.ranking for call in calls], check_wanted)
        return [
            Answer(
                call.continuation,
                log_probabilities=each.log_probabilities,
                usage=Usage(1, len(prompt), len(continuation)),
                prompt_tokens_computed=each.computed,
            )
            for call, (prompt, continuation), each in zip(calls, pairs, scored, strict=True)
        ]

    def _row(self, call: Call) -> _Row:
        """A call with its prompt; a thought that is given is read with it, up to the opened answer."""
        prompt = self._texts.prompt_ids(call.messages, thinks=None if call.free else call.thinks)
        if call.free:
            # Nothing is opened for the model: the published systems leave the whole turn to it.
            room = max(ANSWER_TOKENS, self._tokens_of_answer(call))
            opened = opens_thought(self._texts, prompt)
            return _Row(call, prompt, limit=self.max_thought_tokens + room, opened=opened)
        if call.thinks and call.thought is None:
            return _Row(call, prompt, limit=self.max_thought_tokens)
        opening = given_opening(call)
        given = list(self._texts.continuation(opening)) if opening else []
        return _Row(call, prompt + given, written=list(given), given=len(given), thinking=False)

    def _tokens_of_answer(self, call: Call) -> int:
        if not call.named:
            return _TOKENS_PER_IDENTIFIER * len(call.identifiers)
        return sum(self._texts.count(identifier) + _TOKENS_PER_IDENTIFIER for identifier in call.identifiers)

    @torch.inference_mode()
    def _decode(self, rows: list[_Row]) -> None:
        if self.temperature > 0:
            for row in rows:
                row.generator = self._generator(row.prompt, row.call.sample)
        session = self._open_session(rows, self._known(rows))
        self._think(session, rows)
        self._open_answer(session, rows)
        for place in range(max(places_of(row.call) for row in rows)):
            self._choose(session, rows, place)
        if self._states is not None and any(row.call.ranking for row in rows):
            for row, states in zip(rows, session.take_prompts(), strict=True):
                if row.call.ranking:
                    self._states.keep(row.call.ranking, states)

    def _known(self, rows: list[_Row]) -> list[PromptStates | None] | None:
        """What earlier calls of the same rankings have left of each prompt; `None` for a model that leaves nothing."""
        kept, known = self._states, None
        if kept is not None:
            known = [kept.take(row.call.ranking, row.prompt) if row.call.ranking else None for row in rows]
        for row, states in zip(rows, known or [None] * len(rows), strict=True):
            row.computed = len(row.prompt) - (len(states.tokens) if states is not None else 0)
        return known

    def _open_session(
        self, rows: list[_Row], known: list[PromptStates | None] | None
    ) -> DecodingSession | SeparateSession:
        prompts = [row.prompt for row in rows]
        # The known part and the new one are padded each on its own.
        columns = max(len(row.prompt) - row.computed for row in rows) + max(row.computed for row in rows)
        columns += self.answer_reserve
        columns += _COLUMNS_PER_IDENTIFIER * max(len(row.call.identifiers) for row in rows)
        columns += 3 * max((self._tokens_of_answer(row.call) for row in rows if row.call.named), default=0)
        if self._span is not None and columns > self._span:
            return SeparateSession(self._model, prompts, known)
        return DecodingSession(self._model, prompts, self._texts.pad_id, known)

    def _generator(self, prompt: list[int], sample: int) -> torch.Generator:
        """A random source that depends on the seed, the prompt and the sample's number alone, never on the batch."""
        asked = (self.seed, prompt, sample) if sample else (self.seed, prompt)
        digest = hashlib.sha256(repr(asked).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def _think(self, session: DecodingSession | SeparateSession, rows: list[_Row]) -> None:
        limit = max(row.limit for row in rows)
        for count in range(limit + 1):
            tokens = self._next_tokens(session.logits, rows, count)
            if all(token is None for token in tokens):
                return
            session.append(tokens)
            check_wanted()

    def _next_tokens(self, logits: Tensor, rows: list[_Row], count: int) -> list[int | None]:
        """The next token of every row that is still thinking; a row that ends its turn stops without one.

        At its limit, a thought is closed where its answer is opened, and a free answer ends.
        """
        likeliest: list[int] = logits.argmax(-1).tolist()
        tokens: list[int | None] = [None] * len(rows)
        for index, row in enumerate(rows):
            if row.thinking and count >= row.limit:
                row.thinking, row.stopped = False, "limit"
            if not row.thinking:
                continue
            token = likeliest[index]
            if row.generator is not None:
                scaled = torch.softmax(logits[index].cpu() / self.temperature, -1)
                token = int(torch.multinomial(scaled, 1, generator=row.generator))
            if token in self._end_ids:
                row.thinking, row.stopped = False, "end_of_turn"
            elif self._write(row, token):
                tokens[index] = token
        return tokens

    def _write(self, row: _Row, token: int) -> bool:
        """Writes a token of the thought; False if it is left out because it holds more than a closing tag's end."""
        row.written.append(token)
        if row.call.free or not self._texts.may_end_tag(token):
            return True
        tail = self._texts.decode(row.written[-TAIL_TOKENS:])
        ends = [tail.find(tag) + len(tag) for tag in (THOUGHT_END, ANSWER_START) if tag in tail]
        if not ends:
            return True
        row.thinking = False
        before = self._texts.decode(row.written[-TAIL_TOKENS:-1])
        if not tail[min(ends) :].strip() or not tail.startswith(before):
            return True
        # In `</think><answer>` a vocabulary may hold `><` as one token: half a tag would then stand in the way of ours.
        row.rest_of_tag = tail[len(before) : min(ends)]
        row.written.pop()
        return False

    def _open_answer(self, session: DecodingSession | SeparateSession, rows: list[_Row]) -> None:
        """Brings every row to the place of its first identifier."""
        closings: list[Tokens] = []
        for row in rows:
            if row.call.free or not row.call.thinks:
                closings.append(())
                continue
            text = self._texts.decode(row.written) + row.rest_of_tag
            closing, row.closed_at = closing_of(row.call, text, row.rest_of_tag, row.stopped)
            closings.append(self._texts.continuation(closing) if closing else ())
        session.append_sequences(closings)
        for row, ids in zip(rows, closings, strict=True):
            row.written.extend(ids)

    def _choose(self, session: DecodingSession | SeparateSession, rows: list[_Row], place: int) -> None:
        """Chooses the identifier of one place in every row that has it and appends it."""
        searches: list[ChoiceSearch | None] = []
        for row in rows:
            if place >= places_of(row.call):
                searches.append(None)
                continue
            left = [identifier for identifier in row.call.identifiers if identifier not in row.chosen]
            options = {identifier: identifier_tokens(self._texts, row.call, identifier, place) for identifier in left}
            searches.append(ChoiceSearch(told_apart(options) if row.call.named else options, exhaustive=place == 0))
        while any(search is not None and search.pending is not None for search in searches):
            prefixes: list[Tokens] = [(search.pending or ()) if search is not None else () for search in searches]
            logits = session.look_ahead(prefixes) if any(prefixes) else session.logits
            for index, search in enumerate(searches):
                if search is not None and search.pending is not None:
                    search.tell(logits[index, search.branch_tokens()].tolist())
        appended: list[Tokens] = [()] * len(rows)
        for index, (row, search) in enumerate(zip(rows, searches, strict=True)):
            if search is None:
                continue
            chosen = search.options[search.best]
            row.chosen.append(search.best)
            row.written.extend(chosen)
            if place == 0:
                row.probabilities = search.probabilities
            if len(row.chosen) < places_of(row.call):
                appended[index] = chosen
        session.append_sequences(appended)

    def _to_answer(self, row: _Row) -> Answer:
        written = self._texts.decode(row.written)
        if row.call.free:
            row.close_free(written, row.stopped, opened=row.opened)
        return row.answer(written, Usage(1, len(row.prompt), len(row.written) - row.given))
