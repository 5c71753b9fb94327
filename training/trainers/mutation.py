"""Response mutation: an answer of a group without variance is exchanged, so that the group has something to compare.

After the response mutation of RARL (arXiv 2601.20585), which injects noise around reference answers where rewards say
nothing. How much of it, and into what, is ours: one completion of the group keeps its thought and gets the answer that
the gains ask for; a grade with Gaussian noise around it.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.training.data.gold_answers import gold_completion
from r1ranker_ir.training.data.prompting import sample_of
from r1ranker_ir.training.data.records import TAGS
from r1ranker_ir.training.rewards.answer_protocol import closed_answer

_THINK_END, _ANSWER, _ANSWER_END = TAGS[1:]


@dataclass(frozen=True)
class Mutation:
    """How answers are exchanged; `noise` is the standard deviation of grades around the true one."""

    tokenizer: Any
    noise: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.noise < float("inf"):
            raise InputError(f"mutation_noise is {self.noise}: give a standard deviation of at least 0, in grades")

    def __call__(self, row: Mapping[str, Any], ids: Sequence[int], rng: random.Random) -> list[int] | None:
        """The completion with another answer to a row's question; `None` where it has none, or that one already."""
        text = self._text(ids)
        start = text.rfind(_ANSWER, text.rfind(_THINK_END) + 1, max(text.rfind(_ANSWER_END), 0))
        if start < 0:
            return None
        start += len(_ANSWER)
        end = text.find(_ANSWER_END, start)
        said, wanted = text[start:end].strip(), self._answer(row, rng)
        if not said.startswith("[") and sample_of(row).asks == "grade":
            wanted = wanted.strip("[]")
        if said == wanted:
            return None
        # The tokens of the thought stay those that the model chose; the one that leads into the answer may be shared.
        kept = bisect_right(range(len(ids) + 1), start, key=lambda count: len(self._text(ids[:count]))) - 1
        while not text.startswith(begun := self._text(ids[:kept])):  # some tokenizers end a text with a space
            kept -= 1
        written = self.tokenizer.encode(f"{text[len(begun) : start]}{wanted}{_ANSWER_END}", add_special_tokens=False)
        ends = [ids[-1]] if ids[-1] in self.tokenizer.all_special_ids else []
        return [*ids[:kept], *written, *ends]

    def _answer(self, row: Mapping[str, Any], rng: random.Random) -> str:
        sample = sample_of(row)
        if sample.asks == "grade":
            noisy = tuple(max(0.0, gain + rng.gauss(0, self.noise)) for gain in sample.record.gains)
            sample = replace(sample, record=replace(sample.record, gains=noisy))
        return closed_answer(gold_completion(sample)) or ""

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
