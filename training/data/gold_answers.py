"""Completions that say what the gains ask for: the answers of a teacher who knows them, without reasons of its own.

Fine-tuned on them, a model learns to answer rightly, and to think as little as they do: a start for reinforcement
learning, or a baseline for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from r1ranker_ir.errors import InputError
from r1ranker_ir.files.paths import NamedFile, check_outputs
from r1ranker_ir.prompts.answers import identifiers

from .completion_files import CompletedSample, answered, completion_of, write_completions
from .graded import grade_name, questions_of
from .prompting import sample_of
from .quoted_thoughts import Quoting, quote_of
from .records import TAGS, Sample
from .sample_files import read_metadata, read_samples
from .samples import record_rng


def gold_completion(sample: Sample, thought: str = "", *, seed: int = 0) -> str:
    """Writes the assistant's turn that the gains ask for."""
    record, candidates = sample.record, sample.record.request.candidates
    if not candidates:
        raise InputError(f"request {record.request.query_id!r}: there is no candidate to answer with")
    gains = record.gains
    if sample.asks == "grade":
        grade = grade_name(gains[0])
        return answered(_filled(thought, sample, 0, grade), grade)
    if sample.asks == "order":
        order = sorted(range(len(gains)), key=lambda place: -gains[place])
    else:
        wanted = min(gains) if sample.asks == "worst" else max(gains)
        shown = "\n".join(candidate.id for candidate in candidates)
        rng = random.Random(f"{record_rng(seed, record).random()}:{shown}")
        order = [rng.choice([place for place, gain in enumerate(gains) if gain == wanted])]
    filled = _filled(thought, sample, order[0], identifiers(len(gains))[order[0]])
    return completion_of(filled, order, len(gains))


def _filled(thought: str, sample: Sample, place: int, answer: str) -> str:
    """A thought with what it says of the candidate at a place, and of the answer's beginning."""
    request = sample.record.request
    filled = thought.replace("{id}", request.candidates[place].id).replace("{identifier}", answer).strip()
    if tags := [tag for tag in TAGS if tag in filled]:
        raise InputError(
            f"request {request.query_id!r}: the thought {filled!r} holds the tag {tags[0]}: give a text without "
            "the protocol's tags, and {identifier} in place of {id} where ids hold them"
        )
    return filled


def quoting_completion(sample: Sample, quoting: Quoting) -> str:
    """Writes the assistant's turn whose thought quotes and grades the candidates, and whose answer follows from it.

    Where a grade is asked for, the thought quotes, and the answer is the grade.
    """
    if sample.asks == "grade":
        quote = quote_of(sample.record.request.query, sample.record.request.candidates[0].text, quoting.words)
        return answered(f'"{quote}"', grade_name(sample.record.gains[0]))
    grades = quoting.grades(sample)
    best_first = sorted(range(len(grades)), key=lambda place: -grades[place])
    answer = {"order": best_first, "worst": best_first[-1:]}.get(sample.asks, best_first[:1])
    return completion_of(quoting.thought(sample, grades), answer, len(grades))


def write_gold_answers(
    samples: Path,
    output: Path,
    thought: str = "",
    *,
    quoting: Quoting | None = None,
    seed: int = 0,
    rows: int | None = None,
) -> int:
    """Completes the samples of a file with gold answers, behind the thought given or thoughts that quote."""

    def complete(sample: Sample) -> str:
        return gold_completion(sample, thought, seed=seed) if quoting is None else quoting_completion(sample, quoting)

    def questions(sample: Sample) -> tuple[Sample, ...]:
        teacher = None if quoting is None else quoting.teacher
        return questions_of(sample if teacher is None or sample.asks != "grade" else teacher.taught(sample))

    def completed() -> Iterator[CompletedSample]:
        read = read_samples([samples])
        some = (sample_of(row) for row in (read if rows is None else read.take(min(rows, len(read)))))
        asking = (sample for sample in some if len(set(sample.record.gains)) > 1)
        if (first := next(asking, None)) is None:  # said here, where an earlier file of the name is still untouched
            raise InputError(f"{samples}: all candidates of each sample are worth the same: there is nothing to learn")
        for sample in chain([first], asking):
            for question in questions(sample):
                yield CompletedSample(question, complete(question))

    check_outputs((NamedFile("--output", output),), (NamedFile("--samples", samples),))
    made_of = {"samples": samples.name, "made_of": read_metadata(samples), "thought": thought, "seed": seed}
    if quoting is not None:
        made_of |= {
            "quotes": quoting.words,
            "teacher": None if quoting.teacher is None else asdict(quoting.teacher.teaching),
        }
    return write_completions(output, completed(), {"made_by": "gold answers", **made_of})
