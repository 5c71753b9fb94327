"""The question in a chat, for gateways that pass messages on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r1ranker_ir.errors import InputError


def question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Finds what is asked: the text of the user's last message in OpenAI's form."""
    for message in reversed(messages):
        if message.get("role") == "user" and (text := _text(message.get("content"))).strip():
            return text
    raise InputError(
        f"none of {len(messages)} messages is a user's text, by which to choose a language model: name one yourself"
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == "text"
    )
