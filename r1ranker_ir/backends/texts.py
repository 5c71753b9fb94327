"""A tokenizer's view of prompts, thoughts and identifiers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from r1ranker_ir.prompts.cutting import cut_at_word
from r1ranker_ir.types import Message

from .chat_template import THINK, ChatTemplate, with_thought

# Text is tokenized behind an anchor: alone, some tokenizers would put a space in front of it.
_CLOSING_ANCHOR, _ANSWER_ANCHOR, _ORDER_ANCHOR, _LINE_ANCHOR = ".", "<answer>", "[1]", "\n"


class ChatTokenizer:
    """Wraps a Hugging Face tokenizer with what prompts and decoding need of it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self.control_tokens: tuple[str, ...] = tuple(
            sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), *self._template.marks})
        )
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id: int = pad if pad is not None else 0
        self._opening = self._find_opening()
        self._may_end_tag: dict[int, bool] = {}
        self._after = lru_cache(maxsize=4096)(self._uncached_after)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=special, verbose=False))

    def _find_opening(self) -> list[int]:
        """What the tokenizer puts in front of a text; what some put behind it would end a prompt before its answer."""
        plain, framed = self._ids("a"), self._ids("a", special=True)
        starts = range(len(framed) - len(plain) + 1)
        return framed[: next((start for start in starts if framed[start : start + len(plain)] == plain), 0)]

    def count(self, text: str) -> int:
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
        """Tokenizes a prompt by the model's chat template, the assistant's turn opened."""
        opening = messages[-1].content if messages and messages[-1].role == "assistant" else ""
        said = messages[:-1] if opening else messages
        if self._template:
            # A chat template brings its own beginning-of-text token.
            return self._ids(self._template.open(said, thinks=thinks, opening=opening))
        text = "\n\n".join(message.content for message in said) + f"\n\n{opening}"
        return self._opening + self._ids(with_thought(text, opened=opening.rstrip().endswith(THINK), thinks=thinks))

    def count_prompt(self, messages: Sequence[Message]) -> int:
        return len(self.prompt_ids(messages))

    def prompt_text(self, ids: Sequence[int]) -> str:
        """A prompt as text, without what a server's tokenizer puts in front itself."""
        begun = len(self._opening) if list(ids[: len(self._opening)]) == self._opening else 0
        return self.decode(ids[begun:])

    def template_digest(self) -> str:
        """A hash of what the chat template makes of a short conversation; some templates write today's date."""
        ids = self.prompt_ids([Message("system", "s"), Message("user", "u")])
        return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]

    def end_ids(self, generation_config: Any) -> frozenset[int]:
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

    def _uncached_after(self, anchor: str, text: str) -> tuple[int, ...]:
        # A vocabulary may hold the anchor's end and the text's beginning as one token, such as `>[`.
        for tried in (anchor, _LINE_ANCHOR):
            before, both = self._ids(tried), self._ids(tried + text)
            if both[: len(before)] == before:
                return tuple(both[len(before) :])
        return tuple(self._ids(text))

    def continuation(self, text: str) -> tuple[int, ...]:
        """Tokenizes text that follows something."""
        return self._after(_CLOSING_ANCHOR, text)

    def said_ids(self, text: str) -> tuple[int, ...]:
        """Tokenizes a text as it follows the opening of a turn."""
        return self._after(_LINE_ANCHOR, text)

    def scored_ids(self, messages: Sequence[Message], continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of a prompt and of what the assistant says behind it."""
        return tuple(self.prompt_ids(messages, thinks=False)), self.said_ids(continuation)

    def identifier_ids(self, identifier: str, *, first: bool, tagged: bool = True) -> tuple[int, ...]:
        """Tokenizes an identifier as it follows the opened answer, or, with its separator, another identifier.

        Without the answer's tag, the first one follows a line break, as after a chat template's opening of the turn.
        """
        if first:
            return self._after(_ANSWER_ANCHOR if tagged else _LINE_ANCHOR, identifier)
        return self._after(_ORDER_ANCHOR, f" > {identifier}")

    def named_ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        """Tokenizes a name and what follows it, behind the opened answer or on a line of its own."""
        return self._after(_ANSWER_ANCHOR if first else _LINE_ANCHOR, text)

    def letter_ids(self, identifier: str) -> tuple[int, ...]:
        """Tokenizes an identifier `[A]` with its letter in a token of its own, whatever the vocabulary would join.

        That is how FIRST (arXiv 2406.15657) looks at the letters: those that follow a bracket put behind the prompt.
        """
        bracket, letter, rest = identifier[0], identifier[1:-1], identifier[-1]
        return self._after(_LINE_ANCHOR, bracket) + self._after(bracket, letter) + self._after(letter, rest)
