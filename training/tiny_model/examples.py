"""Candidate lists as token sequences in the embedded model's protocol, with loss weights and probe labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

from r1ranker_ir.training.demo.lists import CandidateList, Mode, completion_of, walked_words

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
MODE_WORDS: dict[Mode, str] = {"exclude": "exclude", "order": "rank"}
COPY_WEIGHT, DECISION_WEIGHT = 0.3, 1.0
NO_LABEL = -100


@dataclass
class Example:
    """One training sequence; all lists have its length."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    passage: list[int] = field(default_factory=list)
    match: list[int] = field(default_factory=list)
    walk: list[int] = field(default_factory=list)
    signs: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float = 0.0, passage: int = NO_LABEL, match: int = NO_LABEL) -> None:
        """Appends tokens that share a weight and a passage; the match label belongs to the last of them."""
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))
        self.passage.extend([passage] * len(ids))
        self.match.extend([NO_LABEL] * (len(ids) - 1) + [match] if ids else [])


class ExampleEncoder:
    """Writes lists as token sequences, word by word with a cache."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, common: Collection[str]) -> None:
        self.tokenizer = tokenizer
        self._common = common
        self.word = lru_cache(maxsize=200_000)(self._word)

    def _word(self, word: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(word, add_special_tokens=False))

    def encode(self, candidates: CandidateList, mode: Mode) -> Example:
        """Encodes one list as prompt, thought and answer."""
        example, walked = Example(), set(walked_words(candidates.query))
        for word in (USER, MODE_WORDS[mode], *candidates.query):
            example.add(self.word(word))
        for number, passage in enumerate(candidates.passages):
            example.add((*self.word("\n"), *self.word(f"[{number + 1}]")))
            for word in passage:
                example.add(self.word(word), passage=number, match=int(word in walked))
        for mark in (ASSISTANT, "<think>", "\n"):
            example.add(self.word(mark))
        for piece in completion_of(candidates, mode, self._common):
            ids = self.word(piece.text)
            if piece.part is not None:
                getattr(example, piece.part).extend(range(len(example.ids), len(example.ids) + len(ids)))
            example.add(ids, DECISION_WEIGHT if piece.decides else COPY_WEIGHT)
        example.add(self.word(END), COPY_WEIGHT)
        return example
