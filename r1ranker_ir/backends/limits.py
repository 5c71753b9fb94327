"""How long prompt, thought and answer of a model may be, whether or not its weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.models.parts import load_config
from r1ranker_ir.models.small import located
from r1ranker_ir.types import Message

from .texts import ChatTokenizer
from .tokens import CountedTexts, EstimatedCounts, counting_tokenizer

ANSWER_TOKENS = 200
"""Tokens of the context that are kept for an answer, beside those for the thought."""


def check_least(least: int, **given: float | None) -> None:
    """Refuses arguments below a least value; `None` is never too little."""
    for name, value in given.items():
        if value is not None and not value >= least:
            raise InputError(f"{name} is {value}: give at least {least}")


def configured_context(config: Any) -> int | None:
    """The tokens that prompt and answer may take together, as a model's configuration says."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def thought_limit(wanted: int, context_length: int | None) -> int:
    """How long a thought may be: half the context at most, so that there is room for a prompt."""
    return wanted if context_length is None else min(wanted, context_length // 2)


class UnloadedLimits(CountedTexts):
    """The limits of a model that is not loaded (`prompts.prompt.TextLimits`), counted by its tokenizer or estimated.

    `name` says who counts.
    """

    def __init__(self, model: str | None, *, context_length: int | None = None, max_thought_tokens: int = 1024) -> None:
        self._texts = None if model is None else ChatTokenizer(counting_tokenizer(model))
        self._counts = self._texts or EstimatedCounts()
        self.name = "estimated" if model is None else f"by the tokenizer of {model}"
        self.context_length = context_length
        if model is not None:
            self.context_length = context_length or _context_of(model)
            max_thought_tokens = thought_limit(max_thought_tokens, self.context_length)
        self.answer_reserve = max_thought_tokens + ANSWER_TOKENS
        self.control_tokens = self._counts.control_tokens

    def render(self, messages: Sequence[Message], thinks: bool | None) -> str | None:
        """A prompt with its thought opened, closed or (`None`) as it is; `None` where no chat template is known."""
        texts = self._texts
        return None if texts is None else texts.decode(texts.prompt_ids(messages, thinks=thinks))


def _context_of(model: str) -> int | None:
    try:
        return configured_context(load_config(model, {"revision": located(model)[1], "trust_remote_code": False}))
    except (OSError, ValueError):
        return None
