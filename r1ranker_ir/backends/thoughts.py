"""Where the thought ends in what a chat server sends back."""

from __future__ import annotations


def split_thought(text: str) -> tuple[str, str]:
    """Splits a model's output into its thought and what follows it.

    The opening `<think>` may be missing (a chat template can have written it), and the closing tag too, for a model
    that ran out of tokens or that goes over to its answer without it.

    Args:
        text: the whole output.

    Returns:
        The thought without its tags, and the rest from the closing tag on; a text with neither tag is all rest.
    """
    head, closing, rest = text.partition("</think>")
    if not closing:
        before, opening, after = text.partition("<answer>")
        if not opening and "<think>" not in text:
            return "", text
        head, rest = before, opening + after
    return head.strip().removeprefix("<think>").strip(), rest


def join_reasoning(reasoning: str, content: str, *, ended: bool = True) -> str:
    """Puts a thought that the server delivered apart back before the answer.

    Args:
        reasoning: the thought; empty where the server leaves it in the content.
        content: the rest; a second thought in it is joined to the first, so that there is one block.
        ended: whether the thought came to its end.

    Returns:
        `<think>…</think>` and the answer, or the content as it is if there is no reasoning.
    """
    if not reasoning:
        return content
    inner, rest = split_thought(content) if "</think>" in content else ("", content)
    thought = f"{reasoning}\n\n{inner}" if inner else reasoning
    return f"<think>{thought}</think>{rest}" if ended else f"<think>{thought}"
