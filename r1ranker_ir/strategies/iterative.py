"""Iterative elimination: IRanker of R1-Ranker (arXiv 2506.21638)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from r1ranker_ir.prompts.answers import read_answer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .budget import BudgetSpent
from .combined import as_asked
from .options import PUBLISHED, RankingOptions
from .schedules import Schedule
from .windows import chances_of, check_window, record_step, with_rest_as_it_was

_IDENTIFIER = re.compile(r"\[(\d+)\]")


@dataclass
class _Window:
    """The candidates that one prompt, or one after the other, holds.

    Args:
        listed: all that were there at the start.
        left: those not excluded yet.
        marked: those excluded, in order, where the prompt still shows them.
        thought: what stands in place of further thoughts, with the identifiers of `listed`; `None` lets the model
            think.
    """

    listed: tuple[int, ...]
    left: list[int]
    marked: list[int] = field(default_factory=list)
    thought: str | None = None

    def call(self, request: RankingRequest, prompt: Prompt, options: RankingOptions, repairs: int) -> Call:
        """Asks which of those left is the worst."""
        thought = self.thought
        if options.layout == "mark":
            call = prompt.exclude_unmarked(request, self.listed, self.marked, repairs)
        else:
            call = prompt.exclude_one(request, self.left, repairs)
            thought = thought and _renumbered(thought, self.listed, self.left)
        return call if thought is None else replace(call, thought=thought)

    def exclude(self, positions: Sequence[int], options: RankingOptions) -> None:
        """Takes candidates out of those left."""
        self.left = [position for position in self.left if position not in positions]
        if options.layout == "mark":
            self.marked += positions


def _renumbered(thought: str, before: Sequence[int], now: Sequence[int]) -> str:
    """A thought about candidates as it reads when only some are shown, perhaps in another order."""
    names = {position: f"[{number}]" for number, position in enumerate(now, start=1)}

    def name(match: re.Match[str]) -> str:
        number = int(match[1]) if len(match[1]) <= 6 else 0
        return names.get(before[number - 1], "(excluded)") if 1 <= number <= len(before) else match[0]

    return _IDENTIFIER.sub(name, thought)


def _excluded_index(call: Call, answer: Answer, listed: int, prompt: Prompt) -> tuple[int, bool]:
    """Which of the call's identifiers goes, and whether that had to be repaired; the last one goes then."""
    if answer.choice is not None:
        return call.identifiers.index(answer.choice[0]), False
    if len(call.identifiers) == listed:
        reading = prompt.read(call, answer)
        return (reading.indices[0], not reading.clean) if reading.indices else (listed - 1, True)
    # Excluded ones are shown as well and can be named.
    reading = read_answer(answer.text, listed, call.form)
    named = f"[{reading.indices[0] + 1}]" if reading.indices else ""
    if named not in call.identifiers:
        return len(call.identifiers) - 1, True
    return call.identifiers.index(named), not reading.clean


def _leaving(index: int, chances: Sequence[float] | None, schedule: Schedule, most: int, at_once: int) -> list[int]:
    """Indices of those that leave now, worst first: the one answered, then by probability, the later one of equals.

    Args:
        index: the one answered.
        chances: beside each of those left its probability; `None` where nothing needs them.
        schedule: how many leave.
        most: how many may.
        at_once: so many have to leave whose order does not matter.
    """
    if chances is None:
        return [index]
    others = [other for other in range(len(chances)) if other != index]
    worst_first = [index, *sorted(others, key=lambda other: (-chances[other], -other))]
    count = at_once or schedule.leaving(len(chances), [chances[other] for other in worst_first])
    return worst_first[: min(count, most)]


def eliminate(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks by excluding the least relevant candidate until one is left; the reversed order is the ranking.

    While more candidates remain than a prompt may hold, the window is the lowest-ranked of them: `stride` are
    excluded from it, then the survivors meet the next ones.

    Args:
        request: the query and its candidates, best first by the first stage.
        prompt: renders the calls.
        window_size: how many candidates a prompt may hold.
        stride: how many leave a window before it moves up.
        options: how many leave at a step, what prompts show, how often the model thinks; votes and budget.

    Returns:
        The program; as published it needs one call less than there are candidates.

    Raises:
        InputError: if window_size or stride make no sense, or the options are those of another strategy; the program
            raises it where they need probabilities and the backend gives none.
    """
    check_window(window_size, stride)
    options.check_for("iterative")
    return as_asked(_eliminate(request, prompt, window_size, stride, options), prompt, options)


def _eliminate(
    request: RankingRequest, prompt: Prompt, window_size: int, stride: int, options: RankingOptions
) -> Program:
    remaining = list(range(len(request.candidates)))
    excluded: list[int] = []
    steps = []
    repairs = 0
    schedule, needing = options.parsed_schedule, options.by_probabilities("iterative")
    with suppress(BudgetSpent):
        while len(remaining) > 1:
            listed = remaining[-window_size:]
            # The last window runs down to the winner; the ones below it only make room.
            survivors = len(listed) - stride if len(remaining) > window_size else 1
            window = _Window(tuple(listed), listed, thought="" if options.think == "never" else None)
            while len(window.left) > survivors:
                call = window.call(request, prompt, options, repairs)
                answer = yield call
                shown = window.left if options.layout == "shrink" else window.listed
                index, repaired = _excluded_index(call, answer, len(shown), prompt)
                chances = chances_of(call, answer, needing) if needing else None
                at_once = 0 if options.top_k is None else max(0, len(remaining) - options.top_k)
                leaving = _leaving(index, chances, schedule, len(window.left) - survivors, at_once)
                outcome = [window.left[place] for place in leaving]
                repairs += repaired
                steps.append(record_step(call, answer, shown, outcome, repaired=repaired, marked=window.marked))
                if options.think == "first" and window.thought is None:
                    window.thought = answer.thought
                if options.show_best_first and chances is not None and len(window.left) == len(window.listed):
                    window.left = [window.left[place] for place in sorted(range(len(chances)), key=chances.__getitem__)]
                window.exclude(outcome, options)
                excluded += outcome
                remaining = [position for position in remaining if position not in outcome]
    order = (*remaining, *reversed(excluded))
    return Ranking(request, with_rest_as_it_was(order, options.top_k), tuple(steps))
