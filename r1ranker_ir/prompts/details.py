"""What a prompt may say of its candidates beside their texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ranker_ir.types import GivenPrompt, RankingRequest


@dataclass(frozen=True)
class CandidateDetails:
    """Of each candidate that a prompt shows, in its order.

    Args:
        names: its name, or its id, neutralised.
        places: its place in the request, from 0; the same in every prompt of a ranking.
        scores: what the first stage gave it; `None` where that is unknown.
        given: the prompt that came with the request, neutralised; `None` where none did.
    """

    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    given: GivenPrompt | None = None


NO_DETAILS = CandidateDetails()
"""For templates that show texts alone."""


def details_of(
    request: RankingRequest, shown: Sequence[int], plain: Callable[[str], str], plain_lines: Callable[[str], str]
) -> CandidateDetails:
    """Collects the details of some candidates."""
    candidates = [request.candidates[position] for position in shown]
    given = request.given
    if given is not None:
        given = GivenPrompt(plain_lines(given.before), plain_lines(given.candidates), plain_lines(given.behind))
    return CandidateDetails(
        tuple(plain(candidate.name or candidate.id) for candidate in candidates),
        tuple(shown),
        tuple(candidate.score for candidate in candidates),
        given,
    )
