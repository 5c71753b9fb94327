"""The tags around thought and answer, and what stands between them, for backends that choose among the identifiers."""

from __future__ import annotations

from collections.abc import Sequence

from r1ranker_ir.backends.choice import Tokens
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.types import Call, ClosedAt

THOUGHT_START, THOUGHT_END, ANSWER_START, ANSWER_END = "<think>", "</think>", "<answer>", "</answer>"
TAIL_TOKENS = 12
"""How many tokens are looked at for a tag."""


def opens_thought(texts: ChatTokenizer, prompt: Sequence[int]) -> bool:
    """Whether the chat template has opened a thought at the end of a prompt."""
    return texts.decode(prompt[-TAIL_TOKENS:]).rstrip().endswith(THOUGHT_START)


def given_opening(call: Call) -> str:
    """What stands up to the answer of a call that has no thought, or is given one."""
    # No empty line where nothing was thought: models are fine-tuned on answers without a thought in this form.
    thought = f"{call.thought}\n" if call.thought else ""
    opening = f"{thought}{THOUGHT_END}\n" if call.thinks else ""
    return opening + _start(call)


def closing_of(call: Call, text: str, rest: str, stopped: ClosedAt | None) -> tuple[str, ClosedAt | None]:
    """What brings a written thought to its answer, and where it was closed if the model has not closed it.

    `text` ends with `rest`, which is left of a tag; `stopped` says where the writing ended.
    """
    start = _start(call)
    if THOUGHT_END in text:
        return rest + ("" if ANSWER_START in text.rpartition(THOUGHT_END)[2] else f"\n{start}"), None
    if ANSWER_START in text:
        return rest, "answer"
    return f"{rest}\n{THOUGHT_END}\n{start}", stopped


def places_of(call: Call) -> int:
    """How many identifiers of an answer are chosen."""
    if call.free:
        return 0
    return 1 if call.form == "one" else call.top or len(call.identifiers)


def said_at(call: Call, identifier: str, place: int) -> str:
    """An identifier as it stands at a place of the answer; what follows a name tells it from a longer one."""
    if call.named:
        return f"{identifier}{ANSWER_END if place == places_of(call) - 1 else chr(10)}"
    return identifier if place == 0 else f" > {identifier}"


def identifier_tokens(texts: ChatTokenizer, call: Call, identifier: str, place: int) -> Tokens:
    if call.named:
        return texts.named_ids(said_at(call, identifier, place), first=place == 0)
    is_letter = identifier[0] == "[" and identifier[1:-1].isalpha()
    if place == 0 and call.form == "one" and not call.tagged and is_letter:
        return texts.letter_ids(identifier)
    return texts.identifier_ids(identifier, first=place == 0, tagged=call.tagged)


def text_and_thought(call: Call, written: str) -> tuple[str, str]:
    """All that stands behind the prompt, from the thought to the closing tag, and the thought alone."""
    text = f"<think>\n{written.rstrip()}" if call.thinks else written.strip()
    text += ANSWER_END if call.tagged and not text.endswith(ANSWER_END) else ""
    thought = written.partition(THOUGHT_END)[0].partition(ANSWER_START)[0].strip() if call.thinks else ""
    return text, thought


def _start(call: Call) -> str:
    return ANSWER_START if call.tagged else ""
