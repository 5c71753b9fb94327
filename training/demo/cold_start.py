"""Completions for a deliberately weak start: the thoughts are right, but many answers do not follow from them.

    python -m r1ranker_ir.training.demo.cold_start --samples steps.parquet --output cold.parquet --lazy 0.6

The teacher of these completions is lazy: in a share of them it writes the whole thought and then answers by position,
whatever it has counted: it excludes the last candidate shown, leaves the order as it is, or grades by 5. A model
fine-tuned on them has the form and the counting, and a strong position bias, which reinforcement learning has to take
away.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from r1ranker_ir.errors import InputError, R1RankerError
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.strategies.grades import MIDDLE
from r1ranker_ir.training.data.completion_files import CompletedSample, write_completions
from r1ranker_ir.training.data.graded import grade_name, questions_of
from r1ranker_ir.training.data.prompting import OPENING, sample_of
from r1ranker_ir.training.data.records import Sample
from r1ranker_ir.training.data.sample_files import read_samples

from .lexicon import build_lexicon, read_documentation
from .lists import IDENTIFIERS, CandidateList, Mode, completion_of

MODES: dict[str, Mode] = {"iterative": "exclude", "direct": "order", "pointwise": "exclude"}
_ANSWER = "<answer>"


@lru_cache(maxsize=1)
def _common_words() -> frozenset[str]:
    return build_lexicon(read_documentation()).common


class ColdStartTeacher:
    """Writes completions in the embedded model's protocol."""

    def __init__(self, lazy: float, max_passage_tokens: int, rng: random.Random) -> None:
        if not 0 <= lazy <= 1:
            raise InputError(f"lazy is {lazy}: give a share from 0 to 1")
        if max_passage_tokens < 1:
            raise InputError(f"max_passage_tokens is {max_passage_tokens}: give at least 1")
        self._lazy, self._most, self._rng = lazy, max_passage_tokens, rng
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(TINY_CHECKPOINT)
        self._ids = lru_cache(maxsize=200_000)(lambda text: self._tokenizer.encode(text, add_special_tokens=False))

    def _words(self, text: str, most: int | None = None) -> tuple[str, ...]:
        ids = self._tokenizer.encode(text, add_special_tokens=False)[:most]
        return tuple(str(self._tokenizer.decode(ids)).split())

    def complete(self, sample: Sample) -> str:
        """Writes the assistant's turn for a sample."""
        request, count = sample.record.request, len(sample.record.gains)
        named = f"request {request.query_id!r}"
        if sample.strategy not in MODES:
            raise InputError(f"{named}: strategy {sample.strategy!r}: use samples for {', '.join(MODES)}")
        if not 0 < count <= len(IDENTIFIERS):
            raise InputError(f"{named}: {count} candidates: use lists of 1 to {len(IDENTIFIERS)}")
        passages = tuple(self._words(candidate.text, self._most) for candidate in request.candidates)
        shown = CandidateList(self._words(request.query), passages)
        pieces = completion_of(shown, MODES[sample.strategy], _common_words())
        written = str(self._tokenizer.decode([id_ for piece in pieces for id_ in self._ids(piece.text)])).strip()
        lazy = self._rng.random() < self._lazy
        if sample.asks == "grade":
            grade = grade_name(MIDDLE if lazy else sample.record.gains[0])
            return f"{OPENING}{written.rpartition(_ANSWER)[0]}{_ANSWER}{grade}</answer>"
        if not lazy:
            return OPENING + written
        by_position = IDENTIFIERS[:count] if sample.asks == "order" else IDENTIFIERS[count - 1 : count]
        return f"{OPENING}{written.rpartition(_ANSWER)[0]}{_ANSWER}{' > '.join(by_position)}</answer>"


def complete_all(teacher: ColdStartTeacher, samples: Path, most: int | None) -> Iterator[CompletedSample]:
    """Yields the first samples of a file, all by default, with the teacher's completions."""
    rows = read_samples([samples])
    for row in rows if most is None else rows.take(min(most, len(rows))):
        for question in questions_of(sample_of(row)):
            yield CompletedSample(question, teacher.complete(question))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description="Write completions for a weak start of the embedded model.")
    parser.add_argument("--samples", type=Path, required=True, help="sample file made by `r1ranker data`")
    parser.add_argument("--output", type=Path, required=True, help="file of completions to write")
    parser.add_argument("--lazy", type=float, default=0.6, help="share of answers by position (default %(default)s)")
    parser.add_argument("--max-passage-tokens", type=int, default=64, help="what is shown of a passage")
    parser.add_argument("--rows", type=int, help="only the first N samples")
    parser.add_argument("--seed", type=int, default=0, help="fixes the choices (default %(default)s)")
    given = parser.parse_args(arguments)
    settings = {"made_by": "cold_start", "lazy": given.lazy, "seed": given.seed, "samples": given.samples.name}
    try:
        teacher = ColdStartTeacher(given.lazy, given.max_passage_tokens, random.Random(given.seed))
        count = write_completions(given.output, complete_all(teacher, given.samples, given.rows), settings)
    except R1RankerError as error:
        parser.exit(1, f"Error: {error}\n")
    print(f"{count} completions in {given.output}")


if __name__ == "__main__":
    main()
