"""Checks and trace entries that strategies with windows share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r1ranker_ir.errors import InputError
from r1ranker_ir.prompts.answers import identifiers
from r1ranker_ir.prompts.digest import digest_of_messages
from r1ranker_ir.types import Answer, Call, Ranking, RankingRequest, Step

PROMPT_HASH_DIGITS = 16


def check_window(window_size: int, stride: int) -> None:
    """Raises an InputError unless windows make progress and overlap: 2 <= window_size and 1 <= stride < window_size."""
    check_window_size(window_size)
    if not 1 <= stride < window_size:
        raise InputError(f"stride is {stride}: give 1 to {window_size - 1}, less than window_size {window_size}")


def check_window_size(window_size: int) -> None:
    """Raises an InputError if there is nothing to compare."""
    if window_size < 2:
        raise InputError(f"window_size is {window_size}: a prompt needs at least 2 candidates to compare")


def sliding(count: int, window_size: int, stride: int) -> Iterator[range]:
    """Windows over so many places from the back, each a stride higher; the last one may be shorter."""
    end = count
    while end > 1:
        start = max(0, end - window_size)
        yield range(start, end)
        if start == 0:
            return
        end -= stride


def record_step(
    call: Call,
    answer: Answer,
    shown: Sequence[int],
    outcome: Sequence[int],
    *,
    repaired: bool,
    marked: Sequence[int] = (),
    grade: float | None = None,
) -> Step:
    """Makes the trace entry of one call, with identifiers turned into positions of the request's candidates."""
    probabilities = None
    # Probabilities of grades are not of candidates.
    if answer.probabilities is not None and grade is None:
        # Fewer identifiers than candidates are shown only where they are numbers; letters have all of theirs.
        names = call.identifiers if len(call.identifiers) == len(shown) else identifiers(len(shown))
        position = dict(zip(names, shown, strict=True))
        probabilities = {position[identifier]: value for identifier, value in answer.probabilities.items()}
    return Step(
        shown=tuple(shown),
        outcome=tuple(outcome),
        thought=answer.thought,
        text=answer.text,
        probabilities=probabilities,
        repaired=repaired,
        thought_closed=answer.thought_closed,
        cut_passages=call.cut_passages,
        cut_query=call.cut_query,
        usage=answer.usage,
        prompt_hash=digest_of_messages(call.messages)[:PROMPT_HASH_DIGITS],
        marked=tuple(marked),
        thought_given=call.thought is not None,
        grade=grade,
        closed_at=answer.closed_at,
        chosen_by=answer.chosen_by,
    )


def chances_of(call: Call, answer: Answer, option: str) -> list[float]:
    """The probability of each of a call's identifiers, in their order; an InputError names the option needing them."""
    if answer.probabilities is None:
        raise InputError(
            f"{option} goes by the probabilities of the identifiers, and this backend, or the server that it asks, "
            "gives none: use the backend 'transformers', or leave the option out"
        )
    return [answer.probabilities.get(identifier, 0.0) for identifier in call.identifiers]


def with_rest_as_it_was(order: Sequence[int], top_k: int | None) -> tuple[int, ...]:
    """An order whose places below `top_k` go back to the first stage's order."""
    kept = len(order) if top_k is None else top_k
    return (*order[:kept], *sorted(order[kept:]))


def ranked_by(scores: Sequence[float], request: RankingRequest, steps: Sequence[Step], top_k: int | None) -> Ranking:
    """Ranks the first candidates by their scores; equals keep their order, and those without a score stay below."""
    scored = sorted(range(len(scores)), key=lambda place: -scores[place])
    order = (*scored, *range(len(scores), len(request.candidates)))
    return Ranking(request, with_rest_as_it_was(order, top_k), tuple(steps))
