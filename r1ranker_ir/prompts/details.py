"""What a prompt may say of its candidates beside their texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ranker_ir.types import RankingRequest


@dataclass(frozen=True)
class CandidateDetails:
    """Of each candidate that a prompt shows, in its order.

    Args:
        names: its id, neutralised.
        places: its place in the request, from 0; the same in every prompt of a ranking.
        scores: what the first stage gave it; `None` where that is unknown.
    """

    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()


NO_DETAILS = CandidateDetails()
"""For templates that show texts alone."""


def details_of(request: RankingRequest, shown: Sequence[int], plain: Callable[[str], str]) -> CandidateDetails:
    """Collects the details of some candidates.

    Args:
        request: with all candidates.
        shown: positions of those that the prompt shows.
        plain: neutralises a text.

    Returns:
        Their details.
    """
    candidates = [request.candidates[position] for position in shown]
    return CandidateDetails(
        tuple(plain(candidate.id) for candidate in candidates),
        tuple(shown),
        tuple(candidate.score for candidate in candidates),
    )
