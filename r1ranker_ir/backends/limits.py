"""How long prompt, thought and answer of a model may be, whether or not its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.models.parts import load_config
from r1ranker_ir.models.small import located
from r1ranker_ir.prompts.cutting import cut_at_word
from r1ranker_ir.types import Message

from .tokens import EstimatedCounts, counting_tokenizer

ANSWER_TOKENS = 200
"""Tokens of the context that are kept for an answer, beside those for the thought."""


def configured_context(config: Any) -> int | None:
    """The tokens that prompt and answer may take together, as a model's configuration says."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def thought_limit(wanted: int, context_length: int | None) -> int:
    """How long a thought may be: half the context at most, so that there is room for a prompt."""
    return wanted if context_length is None else min(wanted, context_length // 2)


@dataclass
class UnloadedLimits:
    """The limits of a model that is not loaded (`prompts.prompt.TextLimits`), counted by its tokenizer or estimated.

    `name` says who counts. `render` writes a prompt with its thought opened, closed or (`None`) as it is, where the
    chat template is known.
    """

    name: str
    context_length: int | None
    answer_reserve: int
    control_tokens: tuple[str, ...]
    count_tokens: Callable[[str], int]
    cut_text: Callable[[str, int], str]
    count_prompt_tokens: Callable[[Sequence[Message]], int]
    render: Callable[[Sequence[Message], bool | None], str] | None = None


def unloaded_limits(
    model: str | None, *, context_length: int | None = None, max_thought_tokens: int = 1024
) -> UnloadedLimits:
    """Opens a model's tokenizer and configuration; without a model, tokens are estimated."""
    if model is None:
        counts = EstimatedCounts()
        return UnloadedLimits(
            "estimated",
            context_length,
            max_thought_tokens + ANSWER_TOKENS,
            counts.control_tokens,
            counts.count,
            lambda text, limit: cut_at_word(text, limit, counts.count),
            counts.count_prompt,
        )
    tokenizer = counting_tokenizer(model, "leave the model out to have tokens estimated")
    from .texts import ChatTokenizer

    texts = ChatTokenizer(tokenizer)
    context = context_length or _context_of(model)
    return UnloadedLimits(
        f"by the tokenizer of {model}",
        context,
        thought_limit(max_thought_tokens, context) + ANSWER_TOKENS,
        texts.control_tokens,
        texts.count,
        texts.cut,
        lambda messages: len(texts.prompt_ids(messages)),
        lambda messages, thinks: texts.decode(texts.prompt_ids(messages, thinks=thinks)),
    )


def _context_of(model: str) -> int | None:
    try:
        return configured_context(load_config(model, {"revision": located(model)[1], "trust_remote_code": False}))
    except (OSError, ValueError):
        return None
