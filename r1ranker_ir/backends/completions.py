"""A thought, then an answer chosen among the identifiers, by way of a server's completions endpoint."""

from __future__ import annotations

import asyncio
import bisect
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1ranker_ir.types import Answer, Call, ChosenBy, ClosedAt, Usage

from .choice import ChoiceSearch, Tokens, told_apart
from .server_abilities import Abilities, Post, RequestFailedError, find_abilities
from .server_replies import Completion
from .tagged_answers import (
    ANSWER_END,
    ANSWER_START,
    THOUGHT_END,
    WrittenAnswer,
    closing_of,
    given_opening,
    identifier_tokens,
    opens_thought,
    places_of,
    said_at,
)
from .tokens import TokenizerCounts

_log = logging.getLogger(__name__)

NO_TOKENIZER = (
    "api='completions' renders prompts here, and the served model's chat template and tokens are not known: give "
    "tokenizer, the model's hub name or a folder with its tokenizer, or use api='chat'"
)
_MORE_TOKENS = 8
# What the options that a server says nothing of may have together, at most, before it is asked for them again.
_NEGLIGIBLE = 0.005


@dataclass
class _Written(WrittenAnswer):
    """What stands behind a call's prompt so far; what is computed of the prompt is known once a server tells it."""

    def note(self, reply: Completion) -> Completion:
        """Remembers of the first request how much of the prompt the server had to compute."""
        if self.computed is None and reply.reply.reused_tokens is not None:
            self.computed = max(0, len(self.prompt) + self.given - reply.reply.reused_tokens)
        return reply


class Completions:
    """Answers calls through one server, whose abilities are found out with the first of them.

    Args:
        texts: the served model's tokenizer and chat template.
        max_thought_tokens: how long a thought may be.
        sampling: gives the fields of a request that writes freely, for the sample's number.
        room: tokens for the answer of a call that is written freely.
        left_out: what is never asked for: `response_format` for constraints, `logprobs`.
    """

    def __init__(
        self,
        texts: TokenizerCounts,
        *,
        max_thought_tokens: int,
        sampling: Callable[[int], Mapping[str, Any]],
        room: Callable[[Call], int],
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        self.abilities: Abilities | None = None
        self._texts = texts
        self._max_thought_tokens = max_thought_tokens
        self._sampling = sampling
        self._room = room
        self._left_out = left_out
        self._finding: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()

    async def find_abilities(self, post: Post) -> Abilities:
        """What the server can do; asked once, however many calls wait for it."""
        lock = self._finding.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            if self.abilities is None:
                self.abilities = await find_abilities(post, self._texts.said_ids, self._left_out)
                if self.abilities.chosen_by != "constraint":
                    _log.warning(
                        "the server can't be held to the identifiers at /completions: answers are %s",
                        "read from text, without probabilities"
                        if self.abilities.scores is None
                        else "chosen by the log-probabilities that it tells",
                    )
        return self.abilities

    async def answer(self, call: Call, post: Post) -> Answer:
        """Answers a call; raises the RequestFailedError of a request that is not answered."""
        await self.find_abilities(post)
        if call.free:
            return await self._written_freely(call, post)
        row = await self._opened(call, post)
        for place in range(places_of(call)):
            if not await self._choose(row, place, post):
                return await self._parsed(row, post)
        return self._to_answer(row, self._texts.decode(row.written), self._able.chosen_by)

    @property
    def _able(self) -> Abilities:
        assert self.abilities is not None
        return self.abilities

    async def _ask(self, post: Post, prompt: Sequence[int], fields: Mapping[str, Any]) -> Completion:
        sent = list(prompt) if self._able.token_ids else self._texts.prompt_text(prompt)
        return await post(sent, fields)

    # --- thoughts ------------------------------------------------------------------------------------------------

    async def _opened(self, call: Call, post: Post) -> _Written:
        """The call up to the place of its first identifier."""
        row = _Written(call, self._texts.prompt_ids(call.messages, thinks=call.thinks))
        if not call.thinks or call.thought is not None:
            opening = given_opening(call)
            row.written = list(self._texts.continuation(opening)) if opening else []
            row.given = len(row.written)
            return row
        rest = ""
        stopped: ClosedAt = "limit"
        if self._max_thought_tokens:
            fields = {**self._sampling(call.sample), "max_tokens": self._max_thought_tokens, "stop": [THOUGHT_END]}
            reply = row.note(await self._ask(post, row.prompt, {**self._able.told, **fields}))
            row.written, rest, stopped = self._thought(reply)
        closing, row.closed_at = closing_of(call, self._texts.decode(row.written) + rest, rest, stopped)
        row.written += self._texts.continuation(closing) if closing else ()
        return row

    def _thought(self, reply: Completion) -> tuple[list[int], str, ClosedAt]:
        """A thought's tokens up to its end, what is left of a tag within them, and where it ended without one."""
        decode, text = self._texts.decode, reply.text
        ids = list(reply.token_ids or ())
        # More than was asked for are not believed: they would be decoded again and again.
        if not 0 < len(ids) <= self._max_thought_tokens + _MORE_TOKENS or not decode(ids).startswith(text):
            ids = list(self._texts.said_ids(text)) if text else []
        tags = [tag for tag in (THOUGHT_END, ANSWER_START) if tag in text]
        if not tags and self._stopped_at_tag(reply, len(ids)):
            tags = [THOUGHT_END]
            if THOUGHT_END not in decode(ids):
                ids = list(self._texts.said_ids(text + THOUGHT_END))
        if not tags:
            while ids and decode(ids[:-1]).startswith(text):
                ids.pop()  # such as the end of the turn
            return ids, "", "limit" if reply.reply.ran_out else "end_of_turn"
        whole = decode(ids)
        tag = min(tags, key=whole.find)
        count = bisect.bisect_left(range(len(ids)), True, key=lambda number: tag in decode(ids[: number + 1])) + 1
        end = whole.find(tag) + len(tag)
        cut, before = decode(ids[:count]), decode(ids[: count - 1])
        if not cut[end:].strip() or not cut.startswith(before):
            return ids[:count], "", "end_of_turn"
        # In `</think><answer>` a vocabulary may hold `><` as one token: half a tag would then stand in the way of ours.
        return ids[: count - 1], cut[len(before) : end], "end_of_turn"

    def _stopped_at_tag(self, reply: Completion, tokens: int) -> bool:
        """Whether a thought ended at its closing tag, as far as the server tells."""
        if reply.reply.ran_out or reply.stopped_at is not None:
            return reply.stopped_at == THOUGHT_END
        if reply.token_ids is not None:
            return THOUGHT_END in self._texts.decode(reply.token_ids)
        written, tag = reply.reply.completion_tokens, len(self._texts.continuation(THOUGHT_END))
        # The end of a turn is one token: where the tag is several, their number tells which of the two was written.
        return written is None or tag == 1 or abs(written - tokens - tag) < abs(written - tokens - 1)

    # --- answers -------------------------------------------------------------------------------------------------

    async def _written_freely(self, call: Call, post: Post) -> Answer:
        row = _Written(call, self._texts.prompt_ids(call.messages, thinks=None))
        fields = {**self._sampling(call.sample), "max_tokens": self._max_thought_tokens + self._room(call)}
        reply = row.note(await self._ask(post, row.prompt, fields))
        text = reply.text
        ended: ClosedAt = "limit" if reply.reply.ran_out else "end_of_turn"
        row.close_free(text, ended, opened=opens_thought(self._texts, row.prompt))
        written = reply.reply.completion_tokens
        return row.answer(text, Usage(1, len(row.prompt), self._texts.count(text) if written is None else written))

    async def _parsed(self, row: _Written, post: Post) -> Answer:
        """Lets the server write the answer, for the strategy to read."""
        row.chosen, row.probabilities = [], None
        fields: dict[str, Any] = {"max_tokens": self._room(row.call), "temperature": 0}
        fields |= {"stop": [ANSWER_END]} if row.call.tagged else {}
        reply = row.note(await self._ask(post, row.prompt + row.written, fields))
        answer = self._to_answer(row, self._texts.decode(row.written) + reply.text, "parsing")
        counted = reply.reply.completion_tokens
        written = self._texts.count(reply.text) if counted is None else counted
        return replace(answer, choice=None, usage=answer.usage + Usage(0, 0, written))

    def _to_answer(self, row: _Written, written: str, chosen_by: ChosenBy) -> Answer:
        usage = Usage(1, len(row.prompt) + row.given, len(row.written) - row.given)
        return row.answer(written, usage, chosen_by)

    async def _choose(self, row: _Written, place: int, post: Post) -> bool:
        """Chooses the identifier of a place and appends it; False where the server can't be made to."""
        call = row.call
        said = {name: said_at(call, name, place) for name in call.identifiers if name not in row.chosen}
        options = {name: identifier_tokens(self._texts, call, name, place) for name in said}
        if call.named:
            options = told_apart(options)
        search = ChoiceSearch(options, exhaustive=place == 0 and self._able.scores is not None)
        if self._able.scores is None and search.pending is not None:
            if self._able.constraint is None or (name := await self._held_to(row, options, said, post)) is None:
                return False
        else:
            while (prefix := search.pending) is not None:
                scores = await self._scored(row, prefix, search, said, post)
                if scores is None:
                    return False
                search.tell(scores)
            name = search.best
            if place == 0:
                row.probabilities = search.probabilities
        row.chosen.append(name)
        row.written += options[name]
        return True

    async def _held_to(
        self, row: _Written, options: Mapping[str, Tokens], said: Mapping[str, str], post: Post
    ) -> str | None:
        """The identifier that a server writes when it is held to them but tells no log-probabilities."""
        texts = {said[name]: name for name in options}
        most = max(map(len, options.values())) + _MORE_TOKENS
        reply = await self._constrained(row, (), list(texts), {"max_tokens": most}, post)
        # Some tokens bring spaces of their own.
        bare = {"".join(text.split()): name for text, name in texts.items()}
        return texts.get(reply.text) or bare.get("".join(reply.text.split()))

    async def _constrained(
        self, row: _Written, prefix: Tokens, texts: Sequence[str], fields: Mapping[str, Any], post: Post
    ) -> Completion:
        """Asks for what follows, held to some texts if the server can be; one that refuses is not asked to again."""
        prompt, asked = [*row.prompt, *row.written, *prefix], {"temperature": 0, **fields}
        constraint, refused = self._able.constraint, None
        if constraint is not None and texts and all(texts) and not any("\ufffd" in text for text in texts):
            try:
                return row.note(await self._ask(post, prompt, asked | constraint.of(texts)))
            except RequestFailedError as error:
                if not error.is_refusal:
                    raise
                refused = error
        reply = row.note(await self._ask(post, prompt, asked))
        if constraint is not None and refused is not None and self._able.constraint is constraint:
            # Only now: what is refused without the constraint, too, was not refused for it.
            _log.warning("the server refuses %s from now on: %s", constraint.name, refused)
            self.abilities = replace(self._able, constraint=None)
        return reply

    async def _scored(
        self, row: _Written, prefix: Tokens, search: ChoiceSearch, said: Mapping[str, str], post: Post
    ) -> list[float] | None:
        """Log-probabilities of the tokens that may follow a prefix; `None` where the server tells none of them."""
        able, branches = self._able, search.branch_tokens()
        assert able.scores is not None
        found: dict[int, float] = {}
        bound = math.inf
        held = able.constraint is not None
        while missing := [token for token in branches if token not in found]:
            through = _through(search, prefix, missing) if held else []
            texts = [self._rest(said[name], prefix, tokens) for name, tokens in through]
            reply = await self._constrained(row, prefix, texts, {"max_tokens": 1, **able.scores}, post)
            new = {token: score for token in missing if (score := self._score_of(token, reply)) is not None}
            # A server that tells them after it was held to fewer options tells too much.
            found |= {token: min(score, bound) for token, score in new.items()}
            if not new and not found and held:
                held = False  # as where it writes the identifier in other tokens
                continue
            if not new:
                break
            # What is not among the likeliest that are told is at most as likely as the last of these; and of those that
            # a server is held to, it writes the likeliest.
            bound = min(bound, *reply.scores.values())
            left = len(branches) - len(found)
            share = left * math.exp(bound - _log_of_sum(found.values()))
            held = held and self._able.constraint is not None
            if not held or not search.exhaustive or share < _NEGLIGIBLE:
                break
        return [found.get(token, bound) for token in branches] if found else None

    def _score_of(self, token: int, reply: Completion) -> float | None:
        score = reply.scores.get(token)
        return reply.scores.get(self._texts.decode([token])) if score is None else score

    def _rest(self, said: str, prefix: Tokens, tokens: Tokens) -> str:
        """What is left to say of an identifier behind the first of its tokens."""
        if not prefix:
            return said
        begun = self._texts.decode(prefix)
        # Some tokenizers leave out a space in front.
        for tried in (begun, f" {begun}"):
            if said.startswith(tried):
                return said[len(tried) :]
        return self._texts.decode(tokens[len(prefix) :])


def _through(search: ChoiceSearch, prefix: Tokens, branches: Sequence[int]) -> list[tuple[str, Tokens]]:
    """The options that begin with a prefix and one of some tokens behind it."""
    count = len(prefix)
    return [
        (name, tokens)
        for name, tokens in search.options.items()
        if tokens[:count] == prefix and len(tokens) > count and tokens[count] in branches
    ]


def _log_of_sum(scores: Iterable[float]) -> float:
    values = list(scores)
    highest = max(values)
    return highest + math.log(sum(math.exp(value - highest) for value in values))
