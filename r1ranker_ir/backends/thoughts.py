"""Where the thought ends in what a chat server sends back."""

from __future__ import annotations

from r1ranker_ir.types import Call


def split_thought(text: str) -> tuple[str, str]:
    """Splits a model's output into its thought, without tags, and what follows it from the closing tag on.

    The opening `<think>` may be missing (a chat template can have written it), and the closing tag too, for a model
    that ran out of tokens or that goes over to its answer without it. A text with neither tag is all rest.
    """
    head, closing, rest = text.partition("</think>")
    if not closing:
        before, opening, after = text.partition("<answer>")
        if not opening and "<think>" not in text:
            return "", text
        head, rest = before, opening + after
    return head.strip().removeprefix("<think>").strip(), rest


def answers_in_reasoning(call: Call, content: str, reasoning: str) -> bool:
    """Whether a server that delivers thoughts apart has taken the answer for a part of the thought."""
    if not reasoning.strip() or any(identifier in content for identifier in call.identifiers):
        return False
    if "<answer>" in reasoning or reasoning.partition("</think>")[2].strip():
        return True
    return not call.thinks


def join_reasoning(reasoning: str, content: str, *, ended: bool = True) -> str:
    """Puts a thought that the server delivered apart back before the answer, as one block."""
    if not reasoning:
        return content
    # Some servers leave the tags in.
    reasoning = reasoning.removeprefix("<think>").removesuffix("</think>")
    inner, rest = split_thought(content) if "</think>" in content else ("", content)
    thought = f"{reasoning}\n\n{inner}" if inner else reasoning
    return f"<think>{thought}</think>{rest}" if ended else f"<think>{thought}"
