"""One answer orders the whole window: DRanker of R1-Ranker (arXiv 2506.21638)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from r1ranker_ir.prompts.answers import complete_order, read_answer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .budget import BudgetSpent
from .combined import as_asked
from .options import PUBLISHED, RankingOptions
from .windows import chances_of, check_window, record_step, with_rest_as_it_was


def _order(call: Call, answer: Answer) -> tuple[tuple[int, ...], bool]:
    """The shown candidates' indices, best first, and whether input order had to fill in."""
    count = len(call.identifiers)
    if answer.choice is not None:
        chosen = [call.identifiers.index(identifier) for identifier in answer.choice]
        return complete_order(chosen, count), False
    reading = read_answer(answer.text, count, call.form)
    return complete_order(reading.indices, count), not reading.clean


def _order_by_scores(call: Call, answer: Answer) -> tuple[tuple[int, ...], bool]:
    """As `_order`, by the probabilities of standing first; equals keep the input order."""
    chances = chances_of(call, answer, "think='never'")
    return tuple(sorted(range(len(chances)), key=lambda index: -chances[index])), False


def order_directly(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks with one call a window; lists longer than a window are worked by sliding windows from the back.

    Args:
        request: the query and its candidates, best first by the first stage.
        prompt: renders the calls.
        window_size: how many candidates a prompt may hold.
        stride: by how many places the window moves up; the best `window_size - stride` of a window meet the next.
        options: `think="never"` takes the order from the probabilities of standing first, as FIRST does (arXiv
            2406.15657); with `top_k`, no more places are asked for than can matter; votes and budget.

    Returns:
        The program; n candidates in windows of w with stride s need 1 + ceil((n - w) / s) calls, at least 1.

    Raises:
        InputError: if window_size or stride make no sense, or the options are those of another strategy; the program
            raises it where they need probabilities and the backend gives none.
    """
    check_window(window_size, stride)
    options.check_for("direct")
    return as_asked(_order_directly(request, prompt, window_size, stride, options), prompt, options)


def _order_directly(
    request: RankingRequest, prompt: Prompt, window_size: int, stride: int, options: RankingOptions
) -> Program:
    order = list(range(len(request.candidates)))
    steps = []
    repairs = 0
    end = len(order)
    with suppress(BudgetSpent):
        while end > 1:
            start = max(0, end - window_size)
            shown = order[start:end]
            call = prompt.order_all(request, shown, repairs)
            if options.think == "never":
                # The first place alone: its probabilities are the order.
                call = replace(call, form="one", thought="")
            elif options.top_k is not None:
                # Only what meets the next window can still rise, and of it no more than k; the rest stays where it is.
                risen = min(options.top_k, window_size - stride)
                call = replace(call, top=min(len(shown), max(risen, options.top_k - start)))
            answer = yield call
            indices, repaired = _order_by_scores(call, answer) if options.think == "never" else _order(call, answer)
            repairs += repaired
            order[start:end] = [shown[index] for index in indices]
            steps.append(record_step(call, answer, shown, order[start:end], repaired=repaired))
            if start == 0:
                break
            end -= stride
    return Ranking(request, with_rest_as_it_was(order, options.top_k), tuple(steps))
