"""How likely is the query behind a candidate: query likelihood, as in UPR (arXiv 2204.07496); nothing is generated."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.types import Answer, Call, Program, RankingRequest, Step

from .budget import BudgetSpent
from .options import PUBLISHED, RankingOptions
from .strategy import Strategy
from .windows import ranked_by, record_step

QUERY = Section(
    "likelihood",
    asks="likelihood",
    user="Passage: {candidates}\n\nWrite a question that this passage answers.",
    tasks={
        "item": "Item: {candidates}\n\nName what somebody chose before this item, one a line, the latest last.",
        "model": "Language model: {candidates}\n\nWanted: {aim}. Write a question that this one is right for.",
    },
)


def score_each(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks by log P(query | candidate); equals keep their order.

    Where the budget ends before the list, the candidates without a score stay below the others. `window_size` and
    `stride` are unused: n candidates need n calls, a single one none.
    """
    if options.votes > 1:
        raise InputError(
            f"votes={options.votes} can't be taken: likelihood has no answers that could differ; leave votes out"
        )
    count = len(request.candidates)
    steps: list[Step] = []
    with suppress(BudgetSpent):
        calls = [prompt.ask(QUERY, request, (place,)) for place in range(count if count > 1 else 0)]
        for place, call in enumerate(calls):
            answer = yield call if place else replace(call, ahead=tuple(calls[1:]))
            steps.append(_step(call, answer, place, options))
    return ranked_by([step.score or 0.0 for step in steps], request, steps, options.top_k)


def _step(call: Call, answer: Answer, place: int, options: RankingOptions) -> Step:
    if answer.log_probabilities is None:
        raise InputError(
            "likelihood goes by the log-probabilities of a given text, and this backend gives none: use the backend "
            "'transformers', or a server that returns the log-probabilities of prompts"
        )
    score = sum(answer.log_probabilities)
    if options.pooling == "mean":
        score /= max(1, len(answer.log_probabilities))
    step = record_step(call, answer, (place,), (place,), repaired=False)
    return replace(step, score=score)


LIKELIHOOD = Strategy(
    "likelihood",
    score_each,
    (QUERY,),
    summary="score by the query's likelihood",
    own={"pooling": None},
    by_probabilities=lambda options: "",
    listed=5,
)
