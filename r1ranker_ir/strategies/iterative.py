"""Iterative elimination: IRanker of R1-Ranker (arXiv 2506.21638)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .asking import Asker, Heard, read_named
from .budget import BudgetSpent
from .options import PUBLISHED, RankingOptions
from .schedules import Schedule
from .strategy import Strategy
from .windows import chances_of, check_window, with_rest_as_it_was

EXCLUDE = Section("iterative", asks="worst")
EXCLUDE_NEXT = Section("mark", asks="worst", names_excluded=True)

_IDENTIFIER = re.compile(r"\[(\d+)\]")


def _renumbered(thought: str, before: Sequence[int], now: Sequence[int]) -> str:
    """A thought about candidates as it reads when only some are shown, perhaps in another order."""
    names = {position: f"[{number}]" for number, position in enumerate(now, start=1)}

    def name(match: re.Match[str]) -> str:
        number = int(match[1]) if len(match[1]) <= 6 else 0
        return names.get(before[number - 1], "(excluded)") if 1 <= number <= len(before) else match[0]

    return _IDENTIFIER.sub(name, thought)


@dataclass(frozen=True)
class _ReadLeaving:
    """Reads which candidates leave, worst first: the one answered, then by probability, the later one of equals.

    `needing` names the option that needs probabilities, if any; `at_once` candidates leave in any order.
    """

    schedule: Schedule
    needing: str
    most: int
    at_once: int

    def __call__(self, call: Call, answer: Answer, prompt: Prompt) -> Heard:
        heard = read_named(call, answer, prompt)
        if not self.needing:
            return heard
        chances, worst = chances_of(call, answer, self.needing), heard.places[0]
        others = [other for other in range(len(chances)) if other != worst]
        worst_first = [worst, *sorted(others, key=lambda other: (-chances[other], -other))]
        count = self.at_once or self.schedule.leaving(len(chances), [chances[other] for other in worst_first])
        return Heard(tuple(worst_first[: min(count, self.most)]), heard.repaired)


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
    excluded from it, then the survivors meet the next ones. As published, it needs one call less than there are
    candidates.
    """
    check_window(window_size, stride)
    remaining = list(range(len(request.candidates)))
    excluded: list[int] = []
    asker, section, marks = Asker(request, prompt), _section(options), options.marks
    schedule, needing = options.parsed_schedule, _by_probabilities(options)
    with suppress(BudgetSpent):
        while len(remaining) > 1:
            listed = tuple(remaining[-window_size:])
            # The last window runs down to the winner; the ones below it only make room.
            survivors = len(listed) - stride if len(remaining) > window_size else 1
            left, thought = list(listed), "" if options.think == "never" else None
            while len(left) > survivors:
                at_once = 0 if options.top_k is None else max(0, len(remaining) - options.top_k)
                step = yield from asker.ask(
                    section,
                    listed if marks else left,
                    marked=[position for position in excluded if position in listed] if marks else (),
                    read=_ReadLeaving(schedule, needing, len(left) - survivors, at_once),
                    # A thought stands in place of further ones, with the identifiers of what is shown now.
                    thought=_renumbered(thought, listed, left) if thought and not marks else thought,
                )
                if options.think == "first" and thought is None:
                    thought = step.thought
                if options.show_best_first and step.probabilities and len(left) == len(listed):
                    worth = step.probabilities
                    left.sort(key=lambda position, worth=worth: worth.get(position, 0.0))  # type: ignore[misc]
                left = [position for position in left if position not in step.outcome]
                excluded += step.outcome
                remaining = [position for position in remaining if position not in step.outcome]
    order = (*remaining, *reversed(excluded))
    return Ranking(request, with_rest_as_it_was(order, options.top_k), tuple(asker.steps))


def _section(options: RankingOptions) -> Section:
    return EXCLUDE_NEXT if options.marks else EXCLUDE


def _by_probabilities(options: RankingOptions) -> str:
    """Names the option that goes by the probabilities at the answer."""
    if options.parsed_schedule.by_probabilities:
        return "think='never'" if options.schedule is None else f"schedule={options.schedule!r}"
    if options.top_k is not None:
        return f"top_k={options.top_k}"
    return "show_best_first" if options.show_best_first else ""


ITERATIVE = Strategy(
    "iterative",
    eliminate,
    (EXCLUDE, EXCLUDE_NEXT),
    summary="exclude the least relevant one after the other",
    own={"schedule": None, "layout": None, "show_best_first": None, "think": ("first",)},
    section_of=_section,
    by_probabilities=_by_probabilities,
    listed=1,
)
