"""Whole eliminations of lists by whatever answers the calls, many at once.

An episode is an elimination that ends early: when all candidates that are left are worth the same, what would follow
could teach nothing and is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.strategies import STRATEGIES
from r1ranker_ir.training.data.prompting import PromptRenderer
from r1ranker_ir.types import Answer, Call


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt: `text` is the assistant's turn, with what the prompt held of it."""

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class EpisodeStep:
    """One exclusion, of one of the positions in the list's candidates that the prompt showed."""

    shown: tuple[int, ...]
    call: Call
    completion: Completion
    excluded: int
    repaired: bool


@dataclass(frozen=True)
class Episode:
    """One elimination of a list, until all that is left is worth the same."""

    record: JudgedRequest
    steps: tuple[EpisodeStep, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Positions in the list's candidates, best first; those that were left at the end in their first order."""
        excluded = [step.excluded for step in self.steps]
        left = [place for place in range(len(self.record.request.candidates)) if place not in excluded]
        return (*left, *reversed(excluded))

    @property
    def best_won(self) -> bool:
        """Whether the winner is worth as much as the best candidate of the list."""
        return self.record.gains[self.order[0]] == max(self.record.gains)

    @property
    def reciprocal_rank(self) -> float:
        """1 / rank of the first candidate with a gain above 0; 0 for a list without any."""
        ranked = (1 / rank for rank, place in enumerate(self.order, 1) if self.record.gains[place] > 0)
        return next(ranked, 0.0)


def roll_out(
    records: Sequence[JudgedRequest],
    renderer: PromptRenderer,
    generate: Callable[[Sequence[Call]], Sequence[Completion]],
    rounds: int,
) -> list[Episode]:
    """Eliminates lists in lockstep, each by the answers that it gets; one episode per record.

    `generate` answers the calls of one round, and gets none once all episodes have ended. It is called `rounds` times,
    as often as the longest list needs: where several processes generate together, all of them need the same number.
    """
    playing: list[Generator[Call, Any, Episode]] = [_play(record, renderer) for record in records]
    calls: dict[int, Call] = {}
    episodes: dict[int, Episode] = {}

    def go_on(place: int, completion: Completion | None) -> None:
        try:
            calls[place] = playing[place].send(completion)
        except StopIteration as stop:
            calls.pop(place, None)
            episodes[place] = stop.value

    for place in range(len(records)):
        go_on(place, None)
    for _ in range(rounds):
        asked = dict(calls)
        for place, completion in zip(asked, generate(list(asked.values())), strict=True):
            go_on(place, completion)
    return [episodes[place] for place in range(len(records))]


def _play(record: JudgedRequest, renderer: PromptRenderer) -> Generator[Call, Completion, Episode]:
    """Drives the elimination's own program, in one window, until all that is left is worth the same."""
    window_size = max(2, len(record.request.candidates))
    program = STRATEGIES["iterative"](record.request, renderer.prompt, window_size=window_size, stride=1)
    left, steps = tuple(range(len(record.request.candidates))), list[EpisodeStep]()
    call = next(program) if _is_open(record, left) else None
    while call is not None and _is_open(record, left):
        completion = yield call
        shown, asked, before = left, call, call.repairs_before
        try:
            call = program.send(Answer(completion.text))
            assert call.question is not None
            left, repaired = call.question.shown, call.repairs_before > before
        except StopIteration as stop:
            call, left, repaired = None, stop.value.order[:1], stop.value.steps[-1].repaired
        [excluded] = set(shown).difference(left)
        steps.append(EpisodeStep(shown, asked, completion, excluded, repaired))
    program.close()
    return Episode(record, tuple(steps))


def _is_open(record: JudgedRequest, left: Sequence[int]) -> bool:
    """Whether it still matters which of the candidates goes."""
    return len({record.gains[place] for place in left}) > 1
