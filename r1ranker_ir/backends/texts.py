"""A tokenizer's view of prompts, thoughts and identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from r1ranker_ir.types import Message

_THINK = "<think>"
# Text is tokenized behind an anchor: alone, some tokenizers would put a space in front of it.
_CLOSING_ANCHOR, _ANSWER_ANCHOR, _ORDER_ANCHOR = ".", "<answer>", "[1]"


class ChatTokenizer:
    """Wraps a Hugging Face tokenizer with what prompts and decoding need of it.

    Args:
        tokenizer: with or without a chat template; without one, the turns are joined by blank lines.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.control_tokens: tuple[str, ...] = tuple(
            sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
        )
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id: int = pad if pad is not None else 0
        self._may_end_tag: dict[int, bool] = {}
        self.identifier_ids = lru_cache(maxsize=1024)(self._identifier_ids)
        self.continuation = lru_cache(maxsize=16)(self._continuation)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def count(self, text: str) -> int:
        """Counts the tokens of plain text."""
        return len(self._ids(text)) if text else 0

    def cut(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning in whole words that takes at most `max_tokens` tokens."""
        if self.count(text) <= max_tokens:
            return text
        words = text.split(" ")
        fits, over = 0, len(words)
        while over - fits > 1:
            middle = (fits + over) // 2
            fits, over = (middle, over) if self.count(" ".join(words[:middle])) <= max_tokens else (fits, middle)
        return " ".join(words[:fits])

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokenizes a prompt by the model's chat template, the assistant's turn opened with its thought."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        text = self._chat_text(turns) if has_template else "\n\n".join(turn["content"] for turn in turns) + "\n\n"
        if not text.rstrip().endswith(_THINK):
            text += f"{_THINK}\n"
        # A chat template brings its own beginning-of-text token.
        return self._ids(text, special=not has_template)

    def _chat_text(self, turns: list[dict[str, str]]) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except TemplateError:
            if turns[0]["role"] != "system":
                raise
            # Some templates know no system turn: its text then opens the user's.
            merged = "\n\n".join(turn["content"] for turn in turns)
            return self._chat_text([{"role": "user", "content": merged}])

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
        before, both = self._ids(anchor), self._ids(anchor + text)
        return both[len(before) :] if both[: len(before)] == before else self._ids(text)

    def _continuation(self, text: str) -> list[int]:
        """Tokenizes text that follows something."""
        return self._after(_CLOSING_ANCHOR, text)

    def _identifier_ids(self, identifier: str, *, first: bool) -> tuple[int, ...]:
        """Tokenizes an identifier as it follows the opened answer, or, with its separator, another identifier."""
        if first:
            return tuple(self._after(_ANSWER_ANCHOR, identifier))
        return tuple(self._after(_ORDER_ANCHOR, f" > {identifier}"))
