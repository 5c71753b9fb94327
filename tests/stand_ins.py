"""What stands in for a model, or for its limits, in tests of what is independent of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.types import Answer, Call, Candidate, Message, Program, Ranking, RankingRequest


@dataclass
class WordLimits:
    """A model that counts words and has no system of turns: for tests of what is independent of the model."""

    context_length: int | None = None
    answer_reserve: int = 0
    control_tokens: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def cut_text(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.count_tokens(message.content) for message in messages)


class Conversation:
    """Requests about numbered documents, and what is to be seen in the calls that their programs make."""

    @staticmethod
    def request(count: int, query: str = "which number is largest", **options: Any) -> RankingRequest:
        """A request whose candidates' texts are `document 0`, `document 1`, …"""
        candidates = tuple(Candidate(f"d{number}", f"document {number}") for number in range(count))
        return RankingRequest(query, candidates, **options)

    @staticmethod
    def shown(call: Call) -> list[int]:
        """The documents that a call's prompt holds, in its order, after a check of their identifiers."""
        lines = re.findall(r"^\[(\d+)\] document (\d+)$", call.messages[-1].content, re.MULTILINE)
        assert [f"[{number}]" for number, _ in lines] == list(call.identifiers)
        return [int(document) for _, document in lines]

    @classmethod
    def by_quality(cls, quality: Sequence[float]) -> Callable[[Call], Answer]:
        """Answers with the truth about the documents that are shown: the worst, the best, or all in order."""

        def reply(call: Call) -> Answer:
            assert call.question is not None
            sign = 1 if call.question.asks == "worst" else -1
            named = zip(cls.shown(call), call.identifiers, strict=True)
            ranked = [name for _, name in sorted(named, key=lambda each: sign * quality[each[0]])]
            return Answer("", choice=tuple(ranked[:1] if call.form == "one" else ranked))

        return reply

    @staticmethod
    def drive(program: Program, reply: Callable[[Call], Answer]) -> tuple[Ranking, list[Call]]:
        """Runs a program by hand; returns its ranking and all of its calls."""
        calls: list[Call] = []
        answer: Answer | None = None
        while True:
            try:
                call = next(program) if answer is None else program.send(answer)
            except StopIteration as stop:
                ranking: Ranking = stop.value
                return ranking, calls
            calls.append(call)
            answer = reply(call)
