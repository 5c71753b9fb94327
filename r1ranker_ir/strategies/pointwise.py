"""One call grades one candidate: pointwise reranking with a thought before the grade, as ERank's (arXiv 2509.00520)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import ranking_option
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.types import Answer, Call, Program, RankingRequest

from .asking import Asker, Heard, read_grade
from .budget import BudgetSpent
from .grades import likeliest_grade
from .options import PUBLISHED, RankingOptions
from .strategy import Strategy
from .windows import ranked_by

GRADE = Section("pointwise", asks="grade")


@dataclass(frozen=True)
class PointwiseOptions(RankingOptions):
    """How the probabilities of grades become a score."""

    graded_by: Literal["expectation", "likeliest"] = ranking_option(
        "expectation",
        "The score of pointwise is the expected grade, or the likeliest one times its probability, as ERank's.",
    )


def grade_each(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks by grades from 0 to 10, each the expected one by the probabilities at the answer; equals keep their order.

    With `graded_by="likeliest"` it is the likeliest grade times its probability. A backend without probabilities gives
    whole grades, of which many are equal. Where the budget ends before the list, the candidates without a grade stay
    below the others. `window_size` and `stride` are unused: n candidates need n calls, a single one none.
    """
    if options.votes > 1 and not prompt.template.thinks:
        raise InputError(
            f"votes={options.votes} are among thoughts, and template {prompt.template.name!r} asks for none: leave "
            "votes out"
        )
    count = len(request.candidates)
    asker = Asker(request, prompt)
    read = _read_likeliest if getattr(options, "graded_by", "expectation") == "likeliest" else read_grade
    grades: list[float] = []
    with suppress(BudgetSpent):
        for position in range(count if count > 1 else 0):
            thought = "" if options.think == "never" else None
            step = yield from asker.ask(GRADE, (position,), read=read, thought=thought)
            grades.append(step.grade or 0.0)
    return ranked_by(grades, request, asker.steps, options.top_k)


def _read_likeliest(call: Call, answer: Answer, prompt: Prompt) -> Heard:
    grade, repaired = likeliest_grade(answer, call.identifiers)
    return Heard((0,), repaired, grade)


POINTWISE = Strategy("pointwise", grade_each, (GRADE,), summary="grade one by one", options=PointwiseOptions, listed=4)
