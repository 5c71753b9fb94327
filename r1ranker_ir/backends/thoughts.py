"""Where the thought ends in what a chat server sends back."""

from __future__ import annotations

from r1ranker_ir.types import Call, ClosedAt


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
    return not call.thinks or "<answer>" in reasoning or bool(reasoning.partition("</think>")[2].strip())


def join_reasoning(reasoning: str, content: str, *, ended: bool = True) -> str:
    """Puts a thought that the server delivered apart back before the answer, as one block."""
    if not reasoning:
        return content
    # Some servers leave the tags in.
    reasoning = reasoning.removeprefix("<think>").removesuffix("</think>").replace("</think>", "\n")
    inner, rest = split_thought(content) if "</think>" in content else ("", content)
    thought = f"{reasoning}\n\n{inner}" if inner else reasoning
    return f"<think>{thought}</think>{rest}" if ended else f"<think>{thought}"


def where_closed(text: str, *, thought_alone: bool, ran_out: bool) -> ClosedAt | None:
    """Where a thought ended that has no end in the text, or that stands alone: at the limit, or with the turn."""
    unended = "<think>" in text and "</think>" not in text
    if "<answer>" in text:
        return "answer" if unended else None
    if ran_out:
        return None if "</think>" in text else "limit"
    # A text without any tag that a model ended itself is an answer.
    return "end_of_turn" if thought_alone or unended else None
