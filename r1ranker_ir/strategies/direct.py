"""One answer orders the whole window: DRanker of R1-Ranker (arXiv 2506.21638), and all listwise rerankers.

Sliding windows from the back are RankGPT's (arXiv 2304.09542).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import suppress

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .asking import Asker, Heard
from .budget import BudgetSpent
from .options import PUBLISHED, RankingOptions, Think
from .strategy import Strategy
from .windows import chances_of, check_window, check_window_size, sliding, with_rest_as_it_was

ORDER = Section("direct", asks="order")


def order_directly(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks with one call a window; lists longer than a window are worked by sliding windows from the back.

    With `sort="tournament"`, long lists are dealt into groups instead, of which the better half of a window goes on to
    the next round, until one group is left and ordered (one tournament of TourRank's, arXiv 2406.11678). With
    `think="never"` the probabilities of standing first are the order, as in FIRST (arXiv 2406.15657).

    n candidates in sliding windows of w with stride s need 1 + ceil((n - w) / s) calls, at least 1.
    """
    if options.sort != "tournament":
        check_window(window_size, stride)
    check_window_size(window_size)
    asker, top_k = Asker(request, prompt), options.top_k
    order = list(range(len(request.candidates)))
    with suppress(BudgetSpent):
        if options.sort == "tournament":
            yield from _play_tournament(asker, order, window_size, options)
        else:
            for window in sliding(len(order), window_size, stride):
                # Only what meets the next window can still rise, and of it no more than k; the rest stays where it is.
                top = 0 if top_k is None else max(min(top_k, window_size - stride), top_k - window.start)
                shown = slice(window.start, window.stop)
                order[shown] = yield from _ordered(asker, order[shown], top, options.think)
    return Ranking(request, with_rest_as_it_was(order, top_k), tuple(asker.steps))


def _ordered(asker: Asker, shown: Sequence[int], top: int, think: Think) -> Generator[Call, Answer, tuple[int, ...]]:
    """Candidates best first; where `top` is not 0, only the first `top` in order, and the others below as they were."""
    if think == "never":
        # The first place alone: its probabilities are the order, however answers are read otherwise.
        step = yield from asker.ask(ORDER, shown, read=_by_chances, form="one", thought="", free=False)
    else:
        step = yield from asker.ask(ORDER, shown, top=min(len(shown), top))
    return step.outcome


def _by_chances(call: Call, answer: Answer, prompt: Prompt) -> Heard:
    """The order by the probabilities of standing first; equals keep the input order."""
    chances = chances_of(call, answer, "think='never'")
    return Heard(tuple(sorted(range(len(chances)), key=lambda index: -chances[index])), False)


def _play_tournament(
    asker: Asker, order: list[int], window_size: int, options: RankingOptions
) -> Generator[Call, Answer, None]:
    """Orders groups in their own places of the list, so that those who go on stand above the others after a round."""
    going_on, left = window_size // 2, len(order)
    while left > 1:
        groups = math.ceil(left / window_size)
        for first in range(groups):
            # Dealt in turn: the best of the round before are spread over all groups.
            group = order[first:left:groups]
            if groups == 1 or len(group) > going_on:
                top = (options.top_k or 0) if groups == 1 else going_on
                order[first:left:groups] = yield from _ordered(asker, group, top, options.think)
        if groups == 1:
            return
        left = groups * going_on


DIRECT = Strategy(
    "direct", order_directly, (ORDER,), summary="order whole windows", own={"sort": ("windows", "tournament")}, listed=2
)
