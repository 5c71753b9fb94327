"""Iterative elimination: IRanker of R1-Ranker (arXiv 2506.21638)."""

from __future__ import annotations

from r1ranker_ir.prompts.answers import read_answer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .windows import check_window, record_step


def _excluded_index(call: Call, answer: Answer) -> tuple[int, bool]:
    """Which shown candidate goes, and whether that had to be repaired; the input order's last goes then."""
    if answer.choice is not None:
        return call.identifiers.index(answer.choice[0]), False
    reading = read_answer(answer.text, len(call.identifiers), call.form)
    if not reading.indices:
        return len(call.identifiers) - 1, True
    return reading.indices[0], not reading.clean


def eliminate(request: RankingRequest, prompt: Prompt, *, window_size: int = 20, stride: int = 10) -> Program:
    """Ranks by excluding the least relevant candidate until one is left; the reversed order is the ranking.

    While more candidates remain than a prompt may hold, the window is the lowest-ranked of them: `stride` are
    excluded from it one by one, then the survivors meet the next ones.

    Args:
        request: the query and its candidates, best first by the first stage.
        prompt: renders the calls.
        window_size: how many candidates a prompt may hold.
        stride: how many leave a window before it moves up.

    Returns:
        The program; it needs one call less than there are candidates.

    Raises:
        InputError: if window_size or stride make no sense.
    """
    check_window(window_size, stride)
    return _eliminate(request, prompt, window_size, stride)


def _eliminate(request: RankingRequest, prompt: Prompt, window_size: int, stride: int) -> Program:
    remaining = list(range(len(request.candidates)))
    excluded: list[int] = []
    steps = []
    repairs = 0
    while len(remaining) > 1:
        shown = remaining[-window_size:]
        # The last window runs down to the winner; the ones below it only make room.
        survivors = len(shown) - stride if len(remaining) > window_size else 1
        while len(shown) > survivors:
            call = prompt.exclude_one(request, shown, repairs)
            answer = yield call
            index, repaired = _excluded_index(call, answer)
            repairs += repaired
            steps.append(record_step(call, answer, shown, (shown[index],), repaired=repaired))
            excluded.append(shown[index])
            remaining.remove(shown[index])
            shown = [*shown[:index], *shown[index + 1 :]]
    return Ranking(request, (*remaining, *reversed(excluded)), tuple(steps))
