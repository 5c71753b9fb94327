"""A tokenizer's chat template: every text of a call arrives in the prompt that it renders, or there is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

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


def _plain(messages: Iterable[Message]) -> list[_Turn]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _parts(messages: Iterable[Message]) -> list[_Turn]:
    """Turns as templates of models that see pictures, too, want them."""
    return [{"role": each.role, "content": [{"type": "text", "text": each.content}]} for each in messages]


def _merged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Puts the system's text at the beginning of the user's, for templates that refuse or drop a system turn."""
    if [message.role for message in messages[:2]] != ["system", "user"]:
        return tuple(messages)
    text = "\n\n".join(message.content for message in messages[:2])
    return (Message("user", text), *messages[2:])


def lost_texts(rendered: str, texts: Sequence[str]) -> list[int]:
    """Finds the texts that a rendered prompt does not hold, each at a place of its own.

    Args:
        rendered: the prompt.
        texts: of the turns. How much white space stands between words does not count, since templates strip it.

    Returns:
        Their places in `texts`, in order.
    """
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
    """Renders turns with a tokenizer's chat template, checked.

    Args:
        tokenizer: of transformers; with or without a chat template.

    Raises:
        CheckpointError: if there are several templates and none is the default one, or if the template does not end.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path)
        known = getattr(tokenizer, "chat_template", None)
        self._sources: tuple[str, ...] = tuple(map(str, known.values() if isinstance(known, dict) else [known or ""]))
        self._source = self._choose(known) if known else ""
        self._way_of: Callable[[tuple[str, ...]], int] = lru_cache(maxsize=64)(self._find_way)
        self._end_of: Callable[[tuple[str, ...]], str] = lru_cache(maxsize=64)(self._find_end)
        if self._source:
            conversations = [*map(_probe, _ROLES), _long_probe()]
            probes = [turns(probe) for probe in conversations for turns in (_plain, _parts)]
            named = {name: str(token) for name, token in getattr(tokenizer, "special_tokens_map", {}).items()}
            if does := why_it_does_not_end(self._source, named, probes):
                raise CheckpointError(f"the chat template of {self.name!r} {does} on a short conversation. {_WAY_OUT}")

    def __bool__(self) -> bool:
        return bool(self._source)

    def _choose(self, known: Any) -> str:
        if not isinstance(known, dict):
            return str(known)
        if "default" in known:
            return str(known["default"])
        if len(known) == 1:
            return str(next(iter(known.values())))
        raise CheckpointError(
            f"{self.name!r} has the chat templates {', '.join(map(repr, known))}, and none is called 'default': give "
            "the one to use this name"
        )

    @cached_property
    def marks(self) -> frozenset[str]:
        """What the template writes around turns, in brackets or as labels; no text may hold it."""
        found = marks_in_source(self._sources)
        for roles in _ROLES if self._source else ():
            probe = _probe(roles)
            for turns in (_plain, _parts):
                for prompted in (True, False):
                    rendered, _ = self._try(turns(probe), prompted)
                    if not _WRITTEN_PART.search(rendered):
                        found |= marks_in_rendered(rendered, [message.content for message in probe])
        return frozenset(found)

    def render(self, messages: Sequence[Message], **switches: Any) -> str:
        """Renders a prompt, with the assistant's turn opened.

        Args:
            messages: the turns.
            switches: variables of the template.

        Returns:
            The text, which holds that of every turn.

        Raises:
            CheckpointError: if the template raises an error, or leaves a text out however it is given.
        """
        first = self._way_of(tuple(message.role for message in messages))
        for way in (first, *(other for other in range(len(_WAYS)) if other != first)):
            rendered, error, lost = self._render(messages, way, switches)
            if not error and not lost:
                return rendered
        raise self._complaint(messages, switches)

    def taken(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The turns as the template takes them: a system turn that it refuses or drops is part of the user's."""
        way = self._way_of(tuple(message.role for message in messages))
        return _merged(messages) if way in _MERGING else tuple(messages)

    def open(self, messages: Sequence[Message], *, thinks: bool | None = True, opening: str = "") -> str:
        """Renders a prompt up to the place where the model goes on.

        Args:
            messages: the turns.
            thinks: open the thought, also where the template closes an empty one; without one, a thought that the
                template opens is closed at once; `None` leaves all as the template has it.

        Returns:
            The text.

        Raises:
            CheckpointError: as for `render`.
        """
        text = self.render(messages)
        if (thinks or opening) and _EMPTY_THOUGHT.search(text):
            # A switch may change more than the end, such as what the system's turn says of thinking.
            switched = self.render(messages, **_THINKING)
            text = _EMPTY_THOUGHT.sub("", switched)
        if not opening:
            opened = self._is_opened(text, tuple(message.role for message in messages))
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

    def _find_way(self, roles: tuple[str, ...]) -> int:
        """Which way of giving turns of these roles has all of them arrive; the first if none has."""
        probe = _probe(roles)
        for way in range(len(_WAYS)):
            _, error, lost = self._render(probe, way, {})
            if not error and not lost:
                return way
        return 0

    def _render(
        self, messages: Sequence[Message], way: int, switches: Mapping[str, Any]
    ) -> tuple[str, Exception | None, list[int]]:
        given, turns = _WAYS[way]
        texts = [message.content for message in messages]
        rendered, error = self._try(turns(given(messages)), True, **switches)
        if error:
            return "", error, []
        # A template that takes plain text only writes a list of parts as Python or JSON would.
        if turns is _parts and _WRITTEN_PART.search(rendered) and not any(map(_WRITTEN_PART.search, texts)):
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

    def _complaint(self, messages: Sequence[Message], switches: Mapping[str, Any]) -> CheckpointError:
        if named := [message.role for message in messages if message.role in _RERANKER_ROLES]:
            return CheckpointError(
                f"the chat template of {self.name!r} has no turn of the role {named[0]!r}, which the template of the "
                "prompt needs (message_roles: reranker): use a reranker whose chat template has it, or a template with "
                "message_roles: default"
            )
        errors: list[Exception] = []
        for way in range(len(_WAYS)):
            _, error, lost = self._render(messages, way, switches)
            if lost:
                turns = " and ".join(
                    f"the {messages[place].role}'s turn ({place + 1} of {len(messages)})" for place in lost
                )
                begins = " ".join(messages[lost[0]].content.split())[:60]
                return CheckpointError(
                    f"the chat template of {self.name!r} leaves out {turns}, which begins {begins!r}. {_WAY_OUT}"
                )
            errors += [error] if error else []
        # What the user's turn alone is refused for says more than that there is no system turn.
        error = errors[-1 if messages[0].role != "system" else 1]
        # What a template says itself needs no name of an exception in front of it.
        said = f"{error}" if type(error).__name__ == "TemplateError" else f"{type(error).__name__}: {error}"
        refused = CheckpointError(f"the chat template of {self.name!r} refuses a user's turn: {said}. {_WAY_OUT}")
        refused.__cause__ = error
        return refused


def _whole(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(messages)


_WAYS: tuple[
    tuple[Callable[[Sequence[Message]], tuple[Message, ...]], Callable[[Iterable[Message]], list[_Turn]]], ...
] = (
    (_whole, _plain),
    (_merged, _plain),
    (_whole, _parts),
    (_merged, _parts),
)
_MERGING = (1, 3)


def _probe(roles: Sequence[str]) -> tuple[Message, ...]:
    words = (f"{_PROBES[place % len(_PROBES)]}{'' if place < len(_PROBES) else place}" for place in range(len(roles)))
    return tuple(Message(role, word) for role, word in zip(roles, words, strict=True))  # type: ignore[arg-type]


def _long_probe() -> tuple[Message, ...]:
    """Turns as long as short prompts are, with tags and lists: some loops begin there only."""
    lines = "\n\n".join(f"[{place}] <b>{' '.join(_PROBES * 8)}</b>" for place in range(1, 21))
    return (Message("system", f"Think between {THINK} and {THINK_END}.\n"), Message("user", lines))


def with_thought(text: str, *, opened: bool, thinks: bool | None) -> str:
    """A prompt whose thought is opened, or closed at once where there is to be none.

    Args:
        text: the prompt.
        opened: a thought is open at its end.
        thinks: whether there is to be one; `None` leaves the text as it is.
    """
    if thinks and not opened:
        return f"{text}{THINK}\n"
    if thinks is False and opened:
        return f"{text.rstrip()}\n\n{THINK_END}\n\n"
    return text
