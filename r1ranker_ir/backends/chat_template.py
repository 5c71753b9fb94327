"""A tokenizer's chat template: every text of a call arrives in the prompt that it renders, or there is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.types import Message

from .chat_marks import marks_in_rendered, marks_in_source
from .template_bounds import why_it_does_not_end

THINK, THINK_END = "<think>", "</think>"
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*\Z")
_WRITTEN_PART = re.compile(r"['\"]type['\"]:\s*['\"]text['\"]")
# How templates name the switch; a template ignores what it does not know.
_THINKING = {"enable_thinking": True, "thinking": True}
# No template writes these words itself, and none has a reason to change them.
_PROBES = ("qzvaromik", "jwxulepta", "kyfodrines", "vhbiqostal")
_ROLES: tuple[tuple[str, ...], ...] = (
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user"),
    ("system", "user"),
    ("user",),
    ("user", "assistant", "tool", "assistant"),
)
# What chat templates of rerankers know besides the usual roles.
_RERANKER_ROLES = ("query", "document")
_WAY_OUT = (
    "Give the tokenizer a chat template that writes every turn (chat_template.jinja, or chat_template in "
    "tokenizer_config.json), or none at all, to have turns joined by blank lines"
)
_Turn = dict[str, Any]


class _Way(NamedTuple):
    """A way of giving turns: the system's text as a part of the user's, texts as parts beside which pictures may be."""

    merged: bool
    in_parts: bool


_WAYS = (_Way(False, False), _Way(True, False), _Way(False, True), _Way(True, True))


def _turns(messages: Iterable[Message], in_parts: bool) -> list[_Turn]:
    if not in_parts:
        return [{"role": message.role, "content": message.content} for message in messages]
    return [{"role": each.role, "content": [{"type": "text", "text": each.content}]} for each in messages]


def merged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The turns with the system's text at the beginning of the user's."""
    if [message.role for message in messages[:2]] != ["system", "user"]:
        return tuple(messages)
    text = "\n\n".join(message.content for message in messages[:2])
    return (Message("user", text), *messages[2:])


def _roles(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(message.role for message in messages)


def lost_texts(rendered: str, texts: Sequence[str]) -> list[int]:
    """Finds the texts that a rendered prompt does not hold, each at a place of its own."""
    for squeeze in (str.strip, lambda text: " ".join(text.split())):
        left, lost = squeeze(rendered), []
        # The longest first: a short text may stand in a long one as well.
        wanted = [squeeze(text) for text in texts]
        for place in sorted(range(len(wanted)), key=[-len(text) for text in wanted].__getitem__):
            text = wanted[place]
            start = left.find(text)
            if start < 0:
                lost.append(place)
            elif text:
                left = f"{left[:start]}\0{left[start + len(text) :]}"
        if not lost:
            break
    return sorted(lost)


class ChatTemplate:
    """Renders turns with a tokenizer's chat template, checked."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path)
        known = getattr(tokenizer, "chat_template", None)
        self._sources: tuple[str, ...] = tuple(map(str, known.values() if isinstance(known, dict) else [known or ""]))
        self._source = self._choose(known) if known else ""
        self._way_of: Callable[[tuple[str, ...]], _Way] = lru_cache(maxsize=64)(self._find_way)
        self._end_of: Callable[[tuple[str, ...]], str] = lru_cache(maxsize=64)(self._find_end)
        if self._source:
            conversations = [*map(_probe, _ROLES), _long_probe()]
            probes = [_turns(probe, in_parts) for probe in conversations for in_parts in (False, True)]
            named = {name: str(token) for name, token in getattr(tokenizer, "special_tokens_map", {}).items()}
            if does := why_it_does_not_end(self._source, named, probes):
                raise CheckpointError(f"the chat template of {self.name!r} {does} on a short conversation. {_WAY_OUT}")

    def __bool__(self) -> bool:
        return bool(self._source)

    def _choose(self, known: Any) -> str:
        if not isinstance(known, dict):
            return str(known)
        if "default" in known or len(known) == 1:
            return str(known["default"] if "default" in known else next(iter(known.values())))
        raise CheckpointError(
            f"{self.name!r} has the chat templates {', '.join(map(repr, known))}, and none is called 'default': give "
            "the one to use this name"
        )

    @cached_property
    def marks(self) -> frozenset[str]:
        """What the template writes around turns, in brackets or as labels; no text may hold it."""
        found = marks_in_source(self._sources)
        for roles, in_parts, prompted in product(_ROLES if self._source else (), (False, True), (True, False)):
            probe = _probe(roles)
            rendered, _ = self._try(_turns(probe, in_parts), prompted)
            if not _WRITTEN_PART.search(rendered):
                found |= marks_in_rendered(rendered, [message.content for message in probe])
        return frozenset(found)

    def render(self, messages: Sequence[Message], **switches: Any) -> str:
        """Renders a prompt that holds every turn's text, with the assistant's turn opened."""
        errors: list[Exception] = []
        dropped: list[int] = []
        for way in dict.fromkeys((self._way_of(_roles(messages)), *_WAYS)):
            rendered, error, lost = self._render(messages, way, switches)
            if not error and not lost:
                return rendered
            errors += [error] if error else []
            dropped = dropped or lost
        raise self._complaint(messages, errors, dropped)

    def taken(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The turns as the template takes them: a system turn that it refuses or drops is part of the user's."""
        return merged(messages) if self._way_of(_roles(messages)).merged else tuple(messages)

    def open(self, messages: Sequence[Message], *, thinks: bool | None = True, opening: str = "") -> str:
        """Renders a prompt up to the place where the model goes on; for `thinks` see `with_thought`."""
        text = self.render(messages)
        if (thinks or opening) and _EMPTY_THOUGHT.search(text):
            # A switch may change more than the end, such as what the system's turn says of thinking.
            text = _EMPTY_THOUGHT.sub("", self.render(messages, **_THINKING))
        if not opening:
            opened = self._is_opened(text, _roles(messages))
            return with_thought(text, opened=opened, thinks=thinks)
        if text.rstrip().endswith(THINK):
            # A thought that the chat template opens is opened by these words, too.
            text = text.rstrip().removesuffix(THINK)
        return with_thought(text + opening, opened=opening.rstrip().endswith(THINK), thinks=thinks)

    def _is_opened(self, text: str, roles: tuple[str, ...]) -> bool:
        """Whether a thought is open at the end of a prompt; what the turns themselves say of tags does not count."""
        if text.rstrip().endswith(THINK):
            return True
        # Some begin the thought with a few words. Looked for behind a probe: a turn's text may stand in a tag, too.
        end = self._end_of(roles)
        return bool(end) and text.endswith(end) and end.rfind(THINK) > end.rfind(THINK_END)

    def _find_end(self, roles: tuple[str, ...]) -> str:
        """What is written behind the last of turns of these roles."""
        probe = _probe(roles)
        rendered, _, lost = self._render(probe, self._way_of(roles), {})
        return "" if lost else rendered.rpartition(probe[-1].content)[2]

    def _find_way(self, roles: tuple[str, ...]) -> _Way:
        """The way of giving turns of these roles that has all of them arrive; the first one if none has."""
        probe = _probe(roles)
        return next((way for way in _WAYS if self._render(probe, way, {})[1:] == (None, [])), _WAYS[0])

    def _render(
        self, messages: Sequence[Message], way: _Way, switches: Mapping[str, Any]
    ) -> tuple[str, Exception | None, list[int]]:
        texts = [message.content for message in messages]
        given = _turns(merged(messages) if way.merged else messages, way.in_parts)
        rendered, error = self._try(given, True, **switches)
        if error:
            return "", error, []
        # A template that takes plain text only writes a list of parts as Python or JSON would.
        if way.in_parts and _WRITTEN_PART.search(rendered) and not any(map(_WRITTEN_PART.search, texts)):
            return "", None, list(range(len(texts)))
        return rendered, None, lost_texts(rendered, texts)

    def _try(self, turns: list[_Turn], prompted: bool, **switches: Any) -> tuple[str, Exception | None]:
        try:
            rendered = self._tokenizer.apply_chat_template(
                turns, chat_template=self._source, add_generation_prompt=prompted, tokenize=False, **switches
            )
        except Exception as error:  # a template is a program of its own, and may raise anything
            return "", error
        return str(rendered), None

    def _complaint(
        self, messages: Sequence[Message], errors: Sequence[Exception], lost: Sequence[int]
    ) -> CheckpointError:
        named = f"the chat template of {self.name!r}"
        if foreign := [message.role for message in messages if message.role in _RERANKER_ROLES]:
            return CheckpointError(
                f"{named} has no turn of the role {foreign[0]!r}, which the template of the prompt needs "
                "(message_roles: reranker): use a reranker whose chat template has it, or a template with "
                "message_roles: default"
            )
        if lost:
            turns = [f"the {messages[place].role}'s turn ({place + 1} of {len(messages)})" for place in lost]
            begins = " ".join(messages[lost[0]].content.split())[:60]
            return CheckpointError(f"{named} leaves out {' and '.join(turns)}, which begins {begins!r}. {_WAY_OUT}")
        # What the user's turn alone is refused for says more than that there is no system turn.
        error = errors[-1 if messages[0].role != "system" else 1]
        # What a template says itself needs no name of an exception in front of it.
        said = f"{error}" if type(error).__name__ == "TemplateError" else f"{type(error).__name__}: {error}"
        refused = CheckpointError(f"{named} refuses a user's turn: {said}. {_WAY_OUT}")
        refused.__cause__ = error
        return refused


def _probe(roles: Sequence[str]) -> tuple[Message, ...]:
    words = (f"{_PROBES[place % len(_PROBES)]}{'' if place < len(_PROBES) else place}" for place in range(len(roles)))
    return tuple(Message(role, word) for role, word in zip(roles, words, strict=True))  # type: ignore[arg-type]


def _long_probe() -> tuple[Message, ...]:
    """Turns as long as short prompts are, with tags and lists: some loops begin there only."""
    lines = "\n\n".join(f"[{place}] <b>{' '.join(_PROBES * 8)}</b>" for place in range(1, 21))
    return (Message("system", f"Think between {THINK} and {THINK_END}.\n"), Message("user", lines))


def with_thought(text: str, *, opened: bool, thinks: bool | None) -> str:
    """A prompt whose thought is opened, or, without one, closed at once; left as it is where `thinks` is `None`."""
    if thinks and not opened:
        return f"{text}{THINK}\n"
    if thinks is False and opened:
        return f"{text.rstrip()}\n\n{THINK_END}\n\n"
    return text
