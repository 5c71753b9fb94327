"""Whole eliminations of lists by whatever answers the calls, many at once.

An episode is an elimination that ends early: when all candidates that are left are worth the same, what would follow
could teach nothing and is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ranker_ir.prompts.answers import read_answer
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.training.data.records import Record, Sample
from r1ranker_ir.types import Call


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt."""

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class EpisodeStep:
    """One exclusion."""

    shown: tuple[int, ...]
    call: Call
    completion: Completion
    excluded: int
    repaired: bool


@dataclass(frozen=True)
class Episode:
    """One elimination of a list, until all that is left is worth the same."""

    record: Record
    steps: tuple[EpisodeStep, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Positions in the list's candidates, best first; those that were left at the end in their first order."""
        excluded = [step.excluded for step in self.steps]
        left = [place for place in range(len(self.record.candidates)) if place not in excluded]
        return (*left, *reversed(excluded))

    @property
    def best_won(self) -> bool:
        """Whether the winner is worth as much as the best candidate of the list."""
        return self.record.gains[self.order[0]] == self.record.best_gain

    @property
    def reciprocal_rank(self) -> float:
        """1 / rank of the first candidate with a gain above 0; 0 for a list without any."""
        ranked = (1 / rank for rank, place in enumerate(self.order, 1) if self.record.gains[place] > 0)
        return next(ranked, 0.0)


def shown_record(record: Record, shown: Sequence[int]) -> Record:
    """A record of some of a list's candidates."""
    candidates = tuple(record.candidates[place] for place in shown)
    gains = tuple(record.gains[place] for place in shown)
    return Record(record.context, candidates, gains, record.task, record.id, record.source, record.aim)


def is_decided(record: Record, remaining: Sequence[int]) -> bool:
    """Whether it no longer matters which of the remaining candidates goes: all of them are worth the same."""
    return len({record.gains[place] for place in remaining}) < 2


def roll_out(
    records: Sequence[Record],
    renderer: PromptRenderer,
    generate: Callable[[Sequence[Call]], Sequence[Completion]],
    *,
    rounds: int | None = None,
) -> list[Episode]:
    """Eliminates lists in lockstep, each by the answers that it gets.

    An answer excludes what it would exclude at inference: where it names no candidate, the last one shown goes (as in
    `strategies.iterative.eliminate` for a backend that can't constrain answers).
    """
    remaining = [list(range(len(record.candidates))) for record in records]
    steps: list[list[EpisodeStep]] = [[] for _ in records]
    needed = max(map(len, remaining), default=1) - 1
    for _ in range(needed if rounds is None else rounds):
        active = [place for place, record in enumerate(records) if not is_decided(record, remaining[place])]
        calls = [
            renderer.render(Sample("iterative", shown_record(records[place], remaining[place]))) for place in active
        ]
        for place, call, completion in zip(active, calls, generate(calls), strict=True):
            left = remaining[place]
            reading = read_answer(completion.text, len(left), "one")
            index = reading.indices[0] if reading.indices else len(left) - 1
            steps[place].append(EpisodeStep(tuple(left), call, completion, left[index], not reading.clean))
            del left[index]
    return [Episode(record, tuple(played)) for record, played in zip(records, steps, strict=True)]
