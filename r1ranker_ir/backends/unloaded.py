"""What prompts must know of a model whose weights are not loaded: to show what would be sent to it."""

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


@dataclass
class UnloadedLimits:
    """The limits of a model (`prompts.prompt.TextLimits`), counted by its tokenizer or estimated.

    Args:
        name: who counts, for people.
        context_length: tokens that prompt and answer may take; `None` where unknown.
        answer_reserve: of these, what is kept for thought and answer.
        control_tokens: strings that the tokenizer reads as structure.
        count_tokens: counts the tokens of plain text.
        cut_text: cuts a text to a number of tokens.
        count_prompt_tokens: counts the tokens of a prompt with its chat template.
        render: writes a prompt as its chat template does, with its thought opened, closed or (`None`) as it is; `None`
            where no chat template is known.
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
    """Opens a model's tokenizer and configuration."""
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
    tokenizer, configured = _open(model)
    from .texts import ChatTokenizer

    texts = ChatTokenizer(tokenizer)
    context = context_length or configured
    thought = max_thought_tokens if context is None else min(max_thought_tokens, context // 2)
    return UnloadedLimits(
        f"by the tokenizer of {model}",
        context,
        thought + ANSWER_TOKENS,
        texts.control_tokens,
        texts.count,
        texts.cut,
        lambda messages: len(texts.prompt_ids(messages)),
        lambda messages, thinks: texts.decode(texts.prompt_ids(messages, thinks=thinks)),
    )


def _open(model: str) -> tuple[Any, int | None]:
    """A model's tokenizer, and the length of its context as its configuration says."""
    tokenizer = counting_tokenizer(model, "leave the model out to have tokens estimated")
    try:
        config = load_config(model, {"revision": located(model)[1], "trust_remote_code": False})
    except (OSError, ValueError):
        return tokenizer, None
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return tokenizer, int(length) if length else None
