"""One call grades a group of candidates beside each other: GroupRank (arXiv 2511.11653)."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import ranking_option
from r1ranker_ir.prompts.answers import answer_text
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.types import Answer, Call, Program, RankingRequest

from .asking import Asker, Heard, asked_in
from .budget import BudgetSpent
from .grades import HIGHEST, MIDDLE
from .options import PUBLISHED, RankingOptions
from .seeded import seeded_by
from .strategy import Strategy
from .windows import check_window_size, ranked_by

_GRADED = re.compile(r"\[(\d{1,6})\]\W{0,8}?(\d{1,6}(?:\.\d+)?)(?!\d|\])")

GRADES = Section(
    "groupwise",
    asks="grades",
    system="You grade each {noun} of a group from 0 to 10. First compare them between <think> and </think>. Then write "
    "all grades between <answer> and </answer>.",
    user="Request: {query}\n\nThese {count} {nouns} are to be graded:\n\n{candidates}\n\nHow well does each of them "
    "serve the request, beside the others? Answer with a whole number from 0 to 10 for each of the {count}, as in "
    '<answer>{{"[1]": 4, "[2]": 9}}</answer>.',
)


@dataclass(frozen=True)
class GroupOptions(RankingOptions):
    """How candidates are graded in groups."""

    rounds: int = ranking_option(
        1, "How often groupwise deals all candidates into new groups; grades are averaged.", least=1
    )


def grade_groups(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks by grades from 0 to 10 that candidates get in groups of `window_size`; equals keep their order.

    Groups are dealt by a seed that the query decides, anew each round; a candidate's grade is the mean of its rounds.
    Answers are written freely, since no backend chooses many grades at once. A candidate without one gets the middle
    grade, which counts as a repair. Where the budget ends first, candidates never graded stay below the others.
    """
    check_window_size(window_size)
    if options.votes > 1:
        raise InputError(f"votes={options.votes} can't be taken among lists of grades: use rounds={options.votes}")
    asker, count = Asker(request, prompt), len(request.candidates)
    given: list[list[float]] = [[] for _ in request.candidates]
    drawing = seeded_by(request.query)

    def read(call: Call, answer: Answer, prompt: Prompt) -> Heard:
        grades = read_grades(answer.text, len(call.identifiers))
        known = [MIDDLE if grade is None else grade for grade in grades]
        for place, grade in zip(asked_in(call).shown, known, strict=True):
            given[place].append(grade)
        return Heard(tuple(sorted(range(len(known)), key=lambda place: -known[place])), None in grades)

    with suppress(BudgetSpent):
        for _ in range(getattr(options, "rounds", 1) if count > 1 else 0):
            # A group that holds all keeps the first stage's order in its first round, as other strategies' prompts do.
            dealt = list(range(count))
            if count > window_size or asker.steps:
                drawing.shuffle(dealt)
            for start in range(0, count, window_size):
                group = dealt[start : start + window_size]
                yield from asker.ask(GRADES, group, read=read, free=True)
    # Whatever the grade, one that was given stands above none.
    return ranked_by([fmean(each) if each else -1.0 for each in given], request, asker.steps, options.top_k)


def read_grades(output: str, count: int) -> list[float | None]:
    """Reads the grade of each of `count` candidates from an answer, `None` where there is none; the last one counts."""
    found: list[float | None] = [None] * count
    for number, grade in _GRADED.findall(answer_text(output) or ""):
        if 1 <= int(number) <= count and float(grade) <= HIGHEST:
            found[int(number) - 1] = float(grade)
    return found


GROUPWISE = Strategy(
    "groupwise", grade_groups, (GRADES,), summary="grade within groups", options=GroupOptions, listed=6
)
