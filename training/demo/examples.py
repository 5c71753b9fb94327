"""Candidate lists as token sequences in the embedded model's protocol, with loss weights and probe labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from transformers import PreTrainedTokenizerFast

from .lists import (
    MOST_SIGNS,
    CandidateList,
    excluded_position,
    falling_order,
    first_place,
    match_weight,
    walked_words,
    word_weight,
)

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
IDENTIFIERS = tuple(f"[{number}]" for number in range(1, 21))
Mode = Literal["exclude", "order"]
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
        self.mark = lru_cache(maxsize=None)(self._mark)

    def _word(self, word: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(word, add_special_tokens=False))

    def _mark(self, mark: str) -> tuple[int]:
        token = self.tokenizer.convert_tokens_to_ids(mark)
        assert isinstance(token, int)
        return (token,)

    def encode(self, candidates: CandidateList, mode: Mode) -> Example:
        """Encodes one list as prompt, thought and answer."""
        walked = walked_words(candidates.query)
        example = Example()
        self._prompt(example, candidates, mode, set(walked))
        example.add((*self.mark("<think>"), *self.mark("\n")))
        weights = [match_weight(walked, passage, self._common) for passage in candidates.passages]
        places = [first_place(walked, passage) for passage in candidates.passages]
        for number, passage in enumerate(candidates.passages):
            example.add(self.mark(f"[{number + 1}]"), DECISION_WEIGHT)
            for word in walked:
                # The first line finds the words in the query; the others only repeat it.
                word_ids = self.word(word)
                if number == 0:
                    example.walk.extend(range(len(example.ids), len(example.ids) + len(word_ids)))
                example.add(word_ids, COPY_WEIGHT if number else DECISION_WEIGHT)
                signs = self.mark("+") * word_weight(word, self._common) if word in passage else self.mark("-")
                example.signs.extend(range(len(example.ids), len(example.ids) + len(signs)))
                example.add(signs, DECISION_WEIGHT)
            if number == 0:
                example.walk.append(len(example.ids))
            example.add(self.mark(f"={weights[number]}"), DECISION_WEIGHT)
            example.add(self.mark(f"@{places[number]}"), DECISION_WEIGHT)
            if mode == "exclude":
                self._worst_so_far(example, weights[: number + 1], places)
            example.add(self.mark("\n"), COPY_WEIGHT)
        if mode == "order":
            most = min(MOST_SIGNS, sum(word_weight(word, self._common) for word in walked))
            self._identifiers_by_weight(example, most, weights)
            example.add(self.mark("\n"), COPY_WEIGHT)
        order = [excluded_position(weights, places)] if mode == "exclude" else falling_order(weights)
        example.add(self.mark("</think>"), DECISION_WEIGHT)
        example.add((*self.mark("\n"), *self.mark("<answer>")), COPY_WEIGHT)
        for rank, position in enumerate(order):
            if rank:
                example.add(self.mark(">"), COPY_WEIGHT)
            example.answer.append(len(example.ids))
            example.add(self.mark(f"[{position + 1}]"), DECISION_WEIGHT)
        example.add((*self.mark("</answer>"), *self.mark(END)), COPY_WEIGHT)
        return example

    def _prompt(self, example: Example, candidates: CandidateList, mode: Mode, walked: set[str]) -> None:
        example.add(self.mark(USER))
        example.add(self.word(MODE_WORDS[mode]))
        for word in candidates.query:
            example.add(self.word(word))
        for number, passage in enumerate(candidates.passages):
            example.add(self.mark("\n"))
            example.add(self.mark(f"[{number + 1}]"))
            for word in passage:
                example.add(self.word(word), passage=number, match=int(word in walked))
        example.add(self.mark(ASSISTANT))

    def _worst_so_far(self, example: Example, weights: Sequence[int], places: Sequence[int]) -> None:
        """Names the candidate that would go if the list ended here."""
        worst = excluded_position(weights, places)
        example.add(self.mark(";"), COPY_WEIGHT)
        for mark in (f"={weights[worst]}", f"@{places[worst]}", f"[{worst + 1}]"):
            example.add(self.mark(mark), DECISION_WEIGHT)

    def _identifiers_by_weight(self, example: Example, most: int, weights: Sequence[int]) -> None:
        """Lists the identifiers under every number of signs that is possible, from the greatest to none."""
        for weight in range(most, -1, -1):
            example.add(self.mark(f"={weight}"), DECISION_WEIGHT)
            for position, its in enumerate(weights):
                if its == weight:
                    example.add(self.mark(f"[{position + 1}]"), DECISION_WEIGHT)
