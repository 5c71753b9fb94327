"""One answer orders the whole window: DRanker of R1-Ranker (arXiv 2506.21638)."""

from __future__ import annotations

from r1ranker_ir.prompts.answers import complete_order, read_answer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .windows import check_window, record_step


def _order(call: Call, answer: Answer) -> tuple[tuple[int, ...], bool]:
    """The shown candidates' indices, best first, and whether input order had to fill in."""
    count = len(call.identifiers)
    if answer.choice is not None:
        return tuple(call.identifiers.index(identifier) for identifier in answer.choice), False
    reading = read_answer(answer.text, count, call.form)
    return complete_order(reading.indices, count), not reading.clean


def order_directly(request: RankingRequest, prompt: Prompt, *, window_size: int = 20, stride: int = 10) -> Program:
    """Ranks with one call a window; lists longer than a window are worked by sliding windows from the back.

    Args:
        request: the query and its candidates, best first by the first stage.
        prompt: renders the calls.
        window_size: how many candidates a prompt may hold.
        stride: by how many places the window moves up; the best `window_size - stride` of a window meet the next.

    Returns:
        The program; n candidates in windows of w with stride s need 1 + ceil((n - w) / s) calls, at least 1.

    Raises:
        InputError: if window_size or stride make no sense.
    """
    check_window(window_size, stride)
    return _order_directly(request, prompt, window_size, stride)


def _order_directly(request: RankingRequest, prompt: Prompt, window_size: int, stride: int) -> Program:
    order = list(range(len(request.candidates)))
    steps = []
    repairs = 0
    end = len(order)
    while end > 1:
        start = max(0, end - window_size)
        shown = order[start:end]
        call = prompt.order_all(request, shown, repairs)
        answer = yield call
        indices, repaired = _order(call, answer)
        repairs += repaired
        order[start:end] = [shown[index] for index in indices]
        steps.append(record_step(call, answer, shown, order[start:end], repaired=repaired))
        if start == 0:
            break
        end -= stride
    return Ranking(request, tuple(order), tuple(steps))
