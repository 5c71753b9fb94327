"""A tokenizer's view of prompts, thoughts and identifiers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from r1ranker_ir.cutting import cut_at_word
from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.types import Message

_THINK = "<think>"
# Text is tokenized behind an anchor: alone, some tokenizers would put a space in front of it.
_CLOSING_ANCHOR, _ANSWER_ANCHOR, _ORDER_ANCHOR, _LINE_ANCHOR = ".", "<answer>", "[1]", "\n"
# Marks of turns that a chat template writes as plain text: <<SYS>>, [/INST], <start_of_turn>.
_TEMPLATE_MARK = re.compile(r"<[^<>\s{}'\"]{1,64}>|\[/?[A-Z][A-Z_]+\]")


def _template_marks(chat_template: Any) -> set[str]:
    """The marks of turns in a chat template, or in several by name."""
    templates = chat_template.values() if isinstance(chat_template, dict) else [chat_template or ""]
    return {mark for template in templates for mark in _TEMPLATE_MARK.findall(template)}


class ChatTokenizer:
    """Wraps a Hugging Face tokenizer with what prompts and decoding need of it.

    Args:
        tokenizer: with or without a chat template; without one, the turns are joined by blank lines.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        marks = _template_marks(getattr(tokenizer, "chat_template", None))
        self.control_tokens: tuple[str, ...] = tuple(
            sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), *marks})
        )
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id: int = pad if pad is not None else 0
        self._opening = self._find_opening()
        self._may_end_tag: dict[int, bool] = {}
        self.identifier_ids = lru_cache(maxsize=1024)(self._identifier_ids)
        self.letter_ids = lru_cache(maxsize=256)(self._letter_ids)
        self.named_ids = lru_cache(maxsize=1024)(self._named_ids)
        self.continuation = lru_cache(maxsize=16)(self._continuation)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=special, verbose=False))

    def _find_opening(self) -> list[int]:
        """What the tokenizer puts in front of a text; what some put behind it would end a prompt before its answer."""
        plain, framed = self._ids("a"), self._ids("a", special=True)
        starts = range(len(framed) - len(plain) + 1)
        return framed[: next((start for start in starts if framed[start : start + len(plain)] == plain), 0)]

    def count(self, text: str) -> int:
        """Counts the tokens of plain text."""
        return len(self._ids(text)) if text else 0

    def cut(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning that takes at most `max_tokens` tokens, in whole words if one fits."""
        return cut_at_word(text, max_tokens, self.count, self._spans)

    def _spans(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Where the tokens stand in the text, where the tokenizer knows."""
        fast = getattr(self._tokenizer, "backend_tokenizer", None)
        # Others who use the tokenizer may have had it pad or truncate; `encode` undoes that for itself.
        if fast is None or fast.truncation is not None or fast.padding is not None:
            return None
        return list(fast.encode(text, add_special_tokens=False).offsets)

    def prompt_ids(self, messages: Sequence[Message], *, thinks: bool | None = True) -> list[int]:
        """Tokenizes a prompt by the model's chat template, the assistant's turn opened.

        Args:
            messages: the turns.
            thinks: open its thought too; without one, a thought that the chat template opens is closed at once; `None`
                leaves all as the chat template has it.
        """
        opening = messages[-1].content if messages and messages[-1].role == "assistant" else ""
        said = messages[:-1] if opening else messages
        turns = [{"role": message.role, "content": message.content} for message in said]
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        text = self._chat_text(turns) if has_template else "\n\n".join(turn["content"] for turn in turns) + "\n\n"
        if opening:
            # A thought that the chat template opens is opened by these words, too.
            text = f"{text.rstrip().removesuffix(_THINK)}" if text.rstrip().endswith(_THINK) else text
            text += opening
        opened = text.rstrip().endswith(_THINK)
        if thinks and not opened:
            text += f"{_THINK}\n"
        elif thinks is False and opened:
            text = f"{text.rstrip()}\n\n</think>\n\n"
        # A chat template brings its own beginning-of-text token.
        return self._ids(text) if has_template else self._opening + self._ids(text)

    def _chat_text(self, turns: list[dict[str, str]]) -> str:
        from jinja2.exceptions import TemplateError

        has_system = turns[0]["role"] == "system"
        try:
            text = str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except TemplateError as error:
            if not has_system:
                name = self._tokenizer.name_or_path
                raise CheckpointError(f"the chat template of {name!r} refuses a user's turn: {error}") from error
            text = ""
        named = [turn for turn in turns if turn["role"] in ("query", "document")]
        if lacking := [turn["role"] for turn in named if turn["content"].strip() not in text]:
            raise CheckpointError(
                f"the chat template of {self._tokenizer.name_or_path!r} has no turn of the role {lacking[0]!r}, which "
                "the template of the prompt needs (message_roles: reranker): use a reranker whose chat template has "
                "it, or a template of the prompt with message_roles: default"
            )
        if has_system and turns[0]["content"].strip() not in text:
            # Some templates refuse a system turn, some drop it: its text then opens the user's.
            merged = "\n\n".join(turn["content"] for turn in turns[:2])
            return self._chat_text([{"role": "user", "content": merged}, *turns[2:]])
        return text

    def template_digest(self) -> str:
        """A hash of what the chat template makes of a short conversation; some templates write today's date."""
        ids = self.prompt_ids([Message("system", "s"), Message("user", "u")])
        return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]

    def end_ids(self, generation_config: Any) -> frozenset[int]:
        """The tokens that end the assistant's turn."""
        ids = {self._tokenizer.eos_token_id}
        configured = getattr(generation_config, "eos_token_id", None)
        ids.update(configured if isinstance(configured, list) else [configured])
        return frozenset(token for token in ids if token is not None)

    def decode(self, ids: Sequence[int]) -> str:
        """Turns tokens back into text, control tokens included: a closing tag may be one."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def may_end_tag(self, token: int) -> bool:
        """Whether a token's text holds what closes a tag; remembered per token."""
        if token not in self._may_end_tag:
            self._may_end_tag[token] = ">" in self._tokenizer.decode([token], skip_special_tokens=False)
        return self._may_end_tag[token]

    def _after(self, anchor: str, text: str) -> list[int]:
        # A vocabulary may hold the anchor's end and the text's beginning as one token, such as `>[`.
        for tried in (anchor, _LINE_ANCHOR):
            before, both = self._ids(tried), self._ids(tried + text)
            if both[: len(before)] == before:
                return both[len(before) :]
        return self._ids(text)

    def _continuation(self, text: str) -> list[int]:
        """Tokenizes text that follows something."""
        return self._after(_CLOSING_ANCHOR, text)

    def _identifier_ids(self, identifier: str, *, first: bool, tagged: bool = True) -> tuple[int, ...]:
        """Tokenizes an identifier as it follows the opened answer, or, with its separator, another identifier.

        Without the answer's tag, the first one follows a line break, as after a chat template's opening of the turn.
        """
        if first:
            return tuple(self._after(_ANSWER_ANCHOR if tagged else _LINE_ANCHOR, identifier))
        return tuple(self._after(_ORDER_ANCHOR, f" > {identifier}"))

    def _named_ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        """Tokenizes a name and what follows it, behind the opened answer or on a line of its own."""
        return tuple(self._after(_ANSWER_ANCHOR if first else _LINE_ANCHOR, text))

    def _letter_ids(self, identifier: str) -> tuple[int, ...]:
        """Tokenizes an identifier `[A]` with its letter in a token of its own, whatever the vocabulary would join.

        That is how FIRST (arXiv 2406.15657) looks at the letters: those that follow a bracket put behind the prompt.
        """
        bracket, letter, rest = identifier[0], identifier[1:-1], identifier[-1]
        parts = (self._after(_LINE_ANCHOR, bracket), self._after(bracket, letter), self._after(letter, rest))
        return tuple(token for part in parts for token in part)
