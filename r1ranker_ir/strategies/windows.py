"""Checks and trace entries that strategies with windows share."""

from __future__ import annotations

from collections.abc import Sequence

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.digest import digest_of_messages
from r1ranker_ir.types import Answer, Call, Step

PROMPT_HASH_DIGITS = 16


def check_window(window_size: int, stride: int) -> None:
    """Checks that windows make progress and overlap.

    Raises:
        InputError: unless 2 <= window_size and 1 <= stride < window_size.
    """
    if window_size < 2:
        raise InputError(f"window_size is {window_size}: a prompt needs at least 2 candidates to compare")
    if not 1 <= stride < window_size:
        raise InputError(f"stride is {stride}: give 1 to {window_size - 1}, less than window_size {window_size}")


def record_step(call: Call, answer: Answer, shown: Sequence[int], outcome: Sequence[int], *, repaired: bool) -> Step:
    """Makes the trace entry of one call, with identifiers turned into positions of the request's candidates."""
    probabilities = None
    if answer.probabilities is not None:
        position = dict(zip(call.identifiers, shown, strict=True))
        probabilities = {position[identifier]: value for identifier, value in answer.probabilities.items()}
    return Step(
        shown=tuple(shown),
        outcome=tuple(outcome),
        thought=answer.thought,
        text=answer.text,
        probabilities=probabilities,
        repaired=repaired,
        thought_closed=answer.thought_closed,
        cut_passages=call.cut_passages,
        cut_query=call.cut_query,
        usage=answer.usage,
        prompt_hash=digest_of_messages(call.messages)[:PROMPT_HASH_DIGITS],
    )
