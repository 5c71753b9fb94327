"""Worked examples: what an earlier ranking thought and answered, as a part of another prompt; plain text throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from r1ranker_ir.prompts.neutral import NUMBERS
from r1ranker_ir.types import Asked, RankingRequest, Task

_INTRODUCTION = "Examples of how others were answered; their numbers mean nothing further down."
ASKED_FOR: Mapping[Asked, str] = {"worst": "Worst", "best": "Best", "order": "Order", "grade": "Grade"}
"""What stands before an answer that is shown."""


@dataclass(frozen=True)
class WorkedExample:
    """A question that was answered well: `answer` holds places among the texts, `thought` may be left out (empty)."""

    query_id: str
    query: str
    task: Task
    asks: Asked
    texts: tuple[str, ...]
    thought: str
    answer: tuple[int, ...]


FindsExamples = Callable[[RankingRequest, Asked], Sequence[WorkedExample]]
"""Gives the examples for a question about a request, the most useful one first."""


def example_text(example: WorkedExample, plain: Callable[[str], str], cut: Callable[[str], str]) -> str:
    """One example in words: candidates go by round brackets, so that nothing in it looks like an identifier.

    `plain` neutralises a text, `cut` shortens a candidate's.
    """
    shown = numbered_texts(example.texts, plain, cut)
    thought = plain(NUMBERS.sub(r"(\1)", example.thought))
    answer = " > ".join(f"({place + 1})" for place in example.answer)
    lines = [f"Query: {plain(example.query)}", *shown, *([f"Thought: {thought}"] if thought else [])]
    return "\n".join([*lines, f"{ASKED_FOR[example.asks]}: {answer}"])


def numbered_texts(texts: Sequence[str], plain: Callable[[str], str], cut: Callable[[str], str]) -> list[str]:
    """Texts that are not to be answered, a line each, behind numbers in round brackets."""
    return [f"({place}) {cut(plain(text))}" for place, text in enumerate(texts, start=1)]


def examples_text(texts: Iterable[str]) -> str:
    """All examples as they stand in a prompt, an empty line behind them."""
    return "".join(f"{text}\n\n" for text in (_INTRODUCTION, *texts))
