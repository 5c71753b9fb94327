"""The tags around thought and answer, and what stands between them, for backends that choose among the identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from r1ranker_ir.backends.choice import Tokens
from r1ranker_ir.backends.structured import identifiers_answered
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.backends.thoughts import split_thought
from r1ranker_ir.types import Answer, Call, ChosenBy, ClosedAt, Usage

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
    return 0 if call.free else identifiers_answered(call)


def said_at(call: Call, identifier: str, place: int) -> str:
    """An identifier as it stands at a place of the answer; what follows a name, or `1`, tells it from a longer one."""
    if call.named:
        return f"{identifier}{ANSWER_END if place == places_of(call) - 1 else chr(10)}"
    if place == 0 and any(other.startswith(identifier) and other != identifier for other in call.identifiers):
        return f"{identifier}{ANSWER_END if call.tagged else chr(10)}"
    return identifier if place == 0 else f" > {identifier}"


def identifier_tokens(texts: ChatTokenizer, call: Call, identifier: str, place: int) -> Tokens:
    if call.named:
        return texts.named_ids(said_at(call, identifier, place), first=place == 0)
    is_letter = identifier[0] == "[" and identifier[1:-1].isalpha()
    if place == 0 and call.form == "one" and not call.tagged and is_letter:
        return texts.letter_ids(identifier)
    said = said_at(call, identifier, place) if place == 0 else identifier
    return texts.identifier_ids(said, first=place == 0, tagged=call.tagged)


@dataclass
class WrittenAnswer:
    """A call, and what stands behind its prompt so far, of which the first `given` tokens were not written."""

    call: Call
    prompt: list[int]
    written: list[int] = field(default_factory=list)
    given: int = 0
    closed_at: ClosedAt | None = None
    chosen: list[str] = field(default_factory=list)
    probabilities: dict[str, float] | None = None
    computed: int | None = None

    def close_free(self, text: str, stopped: ClosedAt | None, *, opened: bool) -> None:
        """Notes where a freely written thought ended that the model did not close; `opened` says that one was begun."""
        if THOUGHT_END in text or not self.call.thinks:
            return
        # Without a thought that was opened, what a model has said by the end of its turn is its answer.
        thinking = (opened or THOUGHT_START in text) and ANSWER_START not in text
        self.closed_at = None if stopped == "end_of_turn" and not thinking else stopped

    def answer(self, said: str, usage: Usage, chosen_by: ChosenBy | None = None) -> Answer:
        """The answer whose text is all that stands behind the prompt, from the thought to the closing tag."""
        call = self.call
        text, thought = said, split_thought(said)[0]
        if not call.free:
            text = f"<think>\n{said.rstrip()}" if call.thinks else said.strip()
            text += ANSWER_END if call.tagged and not text.endswith(ANSWER_END) else ""
            thought = said.partition(THOUGHT_END)[0].partition(ANSWER_START)[0].strip() if call.thinks else ""
        return Answer(
            text=text,
            thought=thought,
            choice=None if call.free else tuple(self.chosen),
            probabilities=self.probabilities,
            thought_closed=self.closed_at is not None,
            closed_at=self.closed_at,
            usage=usage,
            prompt_tokens_computed=self.computed,
            chosen_by=chosen_by,
        )


def _start(call: Call) -> str:
    return ANSWER_START if call.tagged else ""
